-- Items come ten thousand at a time. A statement leaves one audit row in each project: how many rows it changed, and the
-- first of them in path order, which are all of them where a person works.

CREATE FUNCTION audit_statement() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    INSERT INTO audit_log (project_id, table_name, operation, actor_id, request_id, before, after)
    SELECT t.project_id, TG_TABLE_NAME, TG_OP, app_user_id(), nullif(current_setting('app.request_id', true), ''),
           CASE TG_OP WHEN 'DELETE' THEN t.told END, CASE TG_OP WHEN 'INSERT' THEN t.told END
    FROM (SELECT c.project_id, jsonb_build_object('rows', count(*), 'first', (
              SELECT jsonb_agg(to_jsonb(f)) FROM (
                  SELECT * FROM changed s WHERE s.project_id = c.project_id ORDER BY s.path_key LIMIT 100) f)) AS told
          FROM changed c GROUP BY c.project_id) t;
    RETURN NULL;
END $$;

CREATE FUNCTION audit_statement_update() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    INSERT INTO audit_log (project_id, table_name, operation, actor_id, request_id, before, after)
    SELECT c.project_id, TG_TABLE_NAME, TG_OP, app_user_id(), nullif(current_setting('app.request_id', true), ''),
           jsonb_build_object('rows', count(*), 'first', (
               SELECT jsonb_agg(to_jsonb(f)) FROM (
                   SELECT * FROM before s WHERE s.project_id = c.project_id ORDER BY s.path_key LIMIT 100) f)),
           jsonb_build_object('rows', count(*), 'first', (
               SELECT jsonb_agg(to_jsonb(f)) FROM (
                   SELECT * FROM changed s WHERE s.project_id = c.project_id ORDER BY s.path_key LIMIT 100) f))
    FROM changed c GROUP BY c.project_id;
    RETURN NULL;
END $$;

DO $$
DECLARE audited text;
BEGIN
    FOREACH audited IN ARRAY ARRAY['changelist_items', 'shelf_items', 'assets'] LOOP
        EXECUTE format('CREATE TRIGGER audit_insert AFTER INSERT ON %I REFERENCING NEW TABLE AS changed
            FOR EACH STATEMENT EXECUTE FUNCTION audit_statement()', audited);
    END LOOP;
    FOREACH audited IN ARRAY ARRAY['changelist_items', 'shelf_items'] LOOP
        EXECUTE format('CREATE TRIGGER audit_delete AFTER DELETE ON %I REFERENCING OLD TABLE AS changed
            FOR EACH STATEMENT EXECUTE FUNCTION audit_statement()', audited);
    END LOOP;
END $$;
-- A verdict of a pipeline, and an item that is put again. Items of a shelf are replaced, never updated.
CREATE TRIGGER audit_update AFTER UPDATE ON changelist_items REFERENCING OLD TABLE AS before NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION audit_statement_update();

-- A replay, which begins to count anew; an attempt to deliver never leaves 0.
CREATE TRIGGER audit AFTER UPDATE ON webhook_deliveries
    FOR EACH ROW WHEN (NEW.attempts = 0) EXECUTE FUNCTION audit();

-- Accounts and tokens are of no project.
CREATE INDEX audit_log_studio ON audit_log (id) WHERE project_id IS NULL;

REVOKE EXECUTE ON FUNCTION audit_statement(), audit_statement_update() FROM PUBLIC;
