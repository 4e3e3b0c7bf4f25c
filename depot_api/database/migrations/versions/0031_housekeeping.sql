-- What one worker of the deployment does every hour, for all tenants and without an identity.

-- Every project's use, as today's snapshot: the last of the day stays.
CREATE FUNCTION take_storage_snapshots() RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    INSERT INTO storage_snapshots (project_id, day, used_bytes, objects, quota_bytes)
    SELECT p.id, (now() AT TIME ZONE 'UTC')::date, u.used_bytes + c.used_bytes, u.objects + c.objects, p.quota_bytes
    FROM projects p JOIN project_usage u ON u.project_id = p.id CROSS JOIN LATERAL (
        SELECT coalesce(sum(used_bytes), 0) AS used_bytes, coalesce(sum(objects), 0) AS objects
        FROM usage_changes WHERE project_id = p.id) c
    ORDER BY p.id
    ON CONFLICT (project_id, day) DO UPDATE SET taken_at = excluded.taken_at, used_bytes = excluded.used_bytes,
        objects = excluded.objects, quota_bytes = excluded.quota_bytes
$$;

CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);
CREATE FUNCTION expire_idempotency_keys(older_than interval) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    DELETE FROM idempotency_keys WHERE created_at < now() - older_than
$$;

REVOKE EXECUTE ON FUNCTION take_storage_snapshots(), expire_idempotency_keys(interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION take_storage_snapshots(), expire_idempotency_keys(interval) TO depot_service;
