-- Counts an attempt at once, before anybody works on it: many that come together get no further than one by one.
-- 0 when it may go on, else the seconds to wait, and then it is not counted.
CREATE FUNCTION sign_in_attempt(subjects bytea[]) RETURNS double precision
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE
    wait_seconds double precision;
BEGIN
    INSERT INTO login_failures SELECT s, 0, '-infinity' FROM unnest(subjects) s ORDER BY s ON CONFLICT DO NOTHING;
    PERFORM FROM login_failures WHERE subject_sha256 = ANY (subjects) ORDER BY subject_sha256 FOR UPDATE;
    wait_seconds := sign_in_wait_seconds(subjects);
    IF wait_seconds <= 0 THEN
        PERFORM sign_in_failed(subjects);
    END IF;
    RETURN greatest(wait_seconds, 0);
END $$;

-- The account begins anew. The address gets back no more than this attempt, for which it had not to wait: who knows one
-- password may be guessing others.
CREATE FUNCTION sign_in_succeeded(account bytea, address bytea) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    SELECT FROM login_failures WHERE subject_sha256 IN (account, address) ORDER BY subject_sha256 FOR UPDATE;
    DELETE FROM login_failures WHERE subject_sha256 = account;
    UPDATE login_failures SET failures = greatest(failures - 1, 0), last_failed_at = now() - interval '900 s'
    WHERE subject_sha256 = address
$$;

-- Failures so old that they slow nobody down.
CREATE INDEX login_failures_last ON login_failures (last_failed_at);
CREATE FUNCTION forget_sign_ins() RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    DELETE FROM login_failures WHERE last_failed_at < now() - interval '1 day'
$$;

REVOKE EXECUTE ON FUNCTION sign_in_attempt(bytea[]), sign_in_succeeded(bytea, bytea), forget_sign_ins() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION sign_in_attempt(bytea[]), sign_in_succeeded(bytea, bytea), forget_sign_ins()
    TO depot_service;
