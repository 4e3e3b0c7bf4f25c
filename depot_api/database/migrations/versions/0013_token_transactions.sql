-- Begins a transaction with an API token, instead of set_app_user. Whether the token is live is asked each time.
CREATE FUNCTION set_app_token(token_sha256 bytea, request_id text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE signed_in record;
BEGIN
    SELECT * INTO signed_in FROM sign_in_token(token_sha256);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no live token' USING ERRCODE = 'invalid_authorization_specification';
    END IF;
    PERFORM set_app_user(signed_in.user_id, request_id, signed_in.scope::text);
END $$;
REVOKE EXECUTE ON FUNCTION set_app_token(bytea, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION set_app_token(bytea, text) TO depot_service;
