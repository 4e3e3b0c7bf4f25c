-- Counts an attempt at once, before anybody works on it: many that come together get no further than one by one.
-- 0 when it may go on, else the seconds to wait, and then it is not counted. An account has five free failures. An address
-- may be a whole office: it has fifty, and each minute one of them is forgiven.
CREATE FUNCTION sign_in_attempt(account bytea, address bytea) RETURNS double precision
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE
    wait_seconds double precision;
BEGIN
    INSERT INTO login_failures SELECT s, 0, now() - interval '1 day' FROM unnest(ARRAY[account, address]) s ORDER BY s
        ON CONFLICT DO NOTHING;
    PERFORM FROM login_failures WHERE subject_sha256 IN (account, address) ORDER BY subject_sha256 FOR UPDATE;
    SELECT max(extract(epoch FROM f.last_failed_at - now())
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

CREATE FUNCTION minutes_since(moment timestamptz) RETURNS integer
LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    SELECT least(floor(extract(epoch FROM now() - moment) / 60), 1440)::integer
$$;

-- The account begins anew. The address gets back no more than this attempt: who knows one password may guess others.
CREATE FUNCTION sign_in_succeeded(account bytea, address bytea) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    SELECT FROM login_failures WHERE subject_sha256 IN (account, address) ORDER BY subject_sha256 FOR UPDATE;
    DELETE FROM login_failures WHERE subject_sha256 = account;
    UPDATE login_failures SET failures = greatest(failures - 1, 0) WHERE subject_sha256 = address
$$;

-- Failures so old that they slow nobody down.
CREATE INDEX login_failures_last ON login_failures (last_failed_at);
CREATE FUNCTION forget_sign_ins() RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    DELETE FROM login_failures WHERE last_failed_at < now() - interval '1 day'
$$;

REVOKE EXECUTE ON FUNCTION sign_in_attempt(bytea, bytea), minutes_since(timestamptz), sign_in_succeeded(bytea, bytea),
    forget_sign_ins() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION sign_in_attempt(bytea, bytea), sign_in_succeeded(bytea, bytea), forget_sign_ins()
    TO depot_service;
