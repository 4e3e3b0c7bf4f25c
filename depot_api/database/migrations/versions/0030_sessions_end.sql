-- A session is as good as the password that began it: what was signed in before counts no more.
ALTER TABLE users ADD COLUMN valid_after timestamptz NOT NULL DEFAULT '-infinity';

DROP FUNCTION set_app_user(uuid, text, text);
-- Begins every transaction of the service. Checked against users each time: a deactivated account is out at once, and so
-- is a session from before `valid_after`. `signed_in_at` is null for an API token, which is revoked instead.
CREATE FUNCTION set_app_user(user_id uuid, request_id text DEFAULT '', scope text DEFAULT '',
                             signed_in_at timestamptz DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM users u WHERE u.id = user_id AND u.is_active
                   AND (signed_in_at IS NULL OR signed_in_at >= u.valid_after)) THEN
        RAISE EXCEPTION 'no active user %', user_id USING ERRCODE = 'invalid_authorization_specification';
    END IF;
    PERFORM set_config('app.current_user_id', user_id::text, true), set_config('app.request_id', request_id, true),
            set_config('app.token_scope', scope, true);
END $$;

-- Whoever changes their own password keeps their tokens; whose password is reset, or who is deactivated, has none left.
CREATE FUNCTION end_sessions() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    NEW.valid_after := clock_timestamp();
    IF OLD.id IS DISTINCT FROM app_user_id() OR NOT NEW.is_active THEN
        UPDATE api_tokens SET revoked_at = now() WHERE api_tokens.user_id = OLD.id AND revoked_at IS NULL;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER end_sessions BEFORE UPDATE OF password_hash, is_active ON users FOR EACH ROW
    WHEN (OLD.password_hash IS DISTINCT FROM NEW.password_hash OR (OLD.is_active AND NOT NEW.is_active))
    EXECUTE FUNCTION end_sessions();

REVOKE EXECUTE ON FUNCTION set_app_user(uuid, text, text, timestamptz), end_sessions() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION set_app_user(uuid, text, text, timestamptz) TO depot_service;
