-- Monitoring has no identity, and sees no row of a tenant: this door shows counts over all of them, and nothing else.
CREATE FUNCTION depot_gauges()
RETURNS TABLE (locks_held bigint, jobs_queued bigint, jobs_running bigint, jobs_staged bigint,
    oldest_queued_seconds double precision)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    SELECT (SELECT count(*) FROM locks WHERE expires_at > now()),
           count(*) FILTER (WHERE status = 'queued'),
           count(*) FILTER (WHERE status = 'running'),
           count(*) FILTER (WHERE status = 'staged'),
           coalesce(extract(epoch FROM now() - min(created_at) FILTER (WHERE status = 'queued')), 0)::float8
    FROM merge_jobs WHERE status IN ('queued', 'running', 'staged')
$$;
REVOKE ALL ON FUNCTION depot_gauges() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION depot_gauges() TO depot_service;
