-- depot_pgadmin is made by bootstrap: only a superuser hands out BYPASSRLS. What it may read is said here, table by table
-- and not by pg_read_all_data, which would take in what follows.
DO $$ BEGIN
    IF to_regrole('depot_pgadmin') IS NULL THEN
        RAISE EXCEPTION 'the role depot_pgadmin is missing'
            USING HINT = 'Run python -m depot_api.database bootstrap first: this release has new roles.';
    END IF;
END $$;
GRANT USAGE ON SCHEMA public TO depot_pgadmin;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO depot_pgadmin;
GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO depot_pgadmin;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO depot_pgadmin;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON SEQUENCES TO depot_pgadmin;

-- Nobody has to look at these, and a hash can be tried against.
REVOKE SELECT ON users, api_tokens, login_failures, webhook_secrets, idempotency_keys FROM depot_pgadmin;
GRANT SELECT (id, username, display_name, studio_role, is_active, created_at) ON users TO depot_pgadmin;
GRANT SELECT (id, user_id, name, scope, expires_at, revoked_at, created_at) ON api_tokens TO depot_pgadmin;
