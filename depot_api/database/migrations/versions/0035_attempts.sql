-- Whose projects they are is asked once, and not once an item.
CREATE OR REPLACE FUNCTION count_items(changelist uuid) RETURNS integer
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    SELECT count(*)::integer FROM changelist_items i
    WHERE i.changelist_id = changelist AND i.project_id = ANY ((SELECT my_projects())::uuid[])
$$;

-- An account has five free failures. An address may be a whole office: it has fifty, and each minute one is forgiven.
DROP FUNCTION sign_in_attempt(bytea[]);
DROP FUNCTION sign_in_wait_seconds(bytea[]);

CREATE FUNCTION minutes_since(moment timestamptz) RETURNS integer
LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    SELECT floor(extract(epoch FROM now() - greatest(moment, now() - interval '1 day')) / 60)::integer
$$;

-- Counts an attempt at once, before anybody works on it: many that come together get no further than one by one.
-- 0 when it may go on, else the seconds to wait, and then it is not counted.
CREATE FUNCTION sign_in_attempt(account bytea, address bytea) RETURNS double precision
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE
    wait_seconds double precision;
BEGIN
    INSERT INTO login_failures SELECT s, 0, now() - interval '1 day' FROM unnest(ARRAY[account, address]) s ORDER BY s
        ON CONFLICT DO NOTHING;
    PERFORM FROM login_failures WHERE subject_sha256 IN (account, address) ORDER BY subject_sha256 FOR UPDATE;
    -- Where none ever failed the time may be -infinity, which not every version can subtract.
    SELECT max(extract(epoch FROM greatest(f.last_failed_at, now() - interval '1 day') - now())
               + CASE WHEN f.beyond < 0 THEN 0 ELSE least(900, 2 ^ least(f.beyond + 1, 10)) END) INTO wait_seconds
        FROM (SELECT last_failed_at, CASE subject_sha256 WHEN account THEN failures - 5
                                     ELSE failures - minutes_since(last_failed_at) - 50 END AS beyond
              FROM login_failures WHERE subject_sha256 IN (account, address)) f;
    IF wait_seconds <= 0 THEN
        PERFORM sign_in_failed(ARRAY[account]);
        UPDATE login_failures SET failures = greatest(failures - minutes_since(last_failed_at), 0) + 1,
            last_failed_at = now() WHERE subject_sha256 = address;
    END IF;
    RETURN greatest(wait_seconds, 0);
END $$;

-- The account begins anew. The address gets back no more than this attempt: who knows one password may guess others.
CREATE OR REPLACE FUNCTION sign_in_succeeded(account bytea, address bytea) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    SELECT FROM login_failures WHERE subject_sha256 IN (account, address) ORDER BY subject_sha256 FOR UPDATE;
    DELETE FROM login_failures WHERE subject_sha256 = account;
    UPDATE login_failures SET failures = greatest(failures - 1, 0) WHERE subject_sha256 = address
$$;

REVOKE EXECUTE ON FUNCTION sign_in_attempt(bytea, bytea), minutes_since(timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION sign_in_attempt(bytea, bytea) TO depot_service;
