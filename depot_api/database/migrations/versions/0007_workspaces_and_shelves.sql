-- Heads of a branch as of a changelist, a page in path order. For each ancestor, its newest rows are one index scan that
-- stops at the page's end; of the same path on several ancestors the nearest wins. Rows of deletions are kept, so that a
-- page's last key is always right. Inlined by the planner.
CREATE FUNCTION branch_manifest(branch uuid, at_no bigint, after_key text, page_rows bigint)
RETURNS SETOF branch_heads LANGUAGE sql STABLE AS $$
    SELECT DISTINCT ON (h.path_key) h.*
    FROM branch_lineage l CROSS JOIN LATERAL (
        SELECT DISTINCT ON (b.path_key) b.*
        FROM branch_heads b
        WHERE b.branch_id = l.ancestor_id AND b.path_key > after_key AND b.from_no <= least(l.upto_no, at_no)
        ORDER BY b.path_key, b.from_no DESC LIMIT page_rows
    ) h
    WHERE l.branch_id = branch
    ORDER BY h.path_key, l.depth LIMIT page_rows
$$;
REVOKE EXECUTE ON FUNCTION branch_manifest FROM PUBLIC;
GRANT EXECUTE ON FUNCTION branch_manifest TO depot_service;

-- Workspaces ----------------------------------------------------------------------------------------------------------

-- The have-list is what the branch held at at_no, but for paths touched in (since_no, at_no], which may be at either.
-- So the two are equal when it is complete, and null says that nothing is known: then every path has to be compared.
ALTER TABLE workspaces
    ADD COLUMN since_no bigint DEFAULT 0,
    ADD CHECK (since_no BETWEEN 0 AND at_no),
    ADD CHECK (length(name) BETWEEN 1 AND 200),
    ADD CHECK (cardinality(include) <= 200 AND cardinality(exclude) <= 200);
GRANT UPDATE (since_no) ON workspaces TO depot_service;
-- For the policy own_workspace, which every statement on a workspace's files asks.
CREATE INDEX workspaces_owner ON workspaces (owner_id);

ALTER TABLE workspace_files
    DROP CONSTRAINT workspace_files_workspace_id_fkey,
    ADD FOREIGN KEY (workspace_id) REFERENCES workspaces ON DELETE CASCADE;

CREATE TYPE workspace_activity_kind AS ENUM ('created', 'switched', 'mapped', 'synced', 'deleted');

-- Outlives its workspace, so it holds the workspace's name and does not refer to it.
CREATE TABLE workspace_activity (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project_id     uuid NOT NULL REFERENCES projects,
    workspace_id   uuid NOT NULL,
    workspace_name text NOT NULL,
    user_id        uuid NOT NULL REFERENCES users,
    kind           workspace_activity_kind NOT NULL,
    branch_id      uuid NOT NULL REFERENCES branches,
    at_no          bigint NOT NULL,
    updated_files  integer NOT NULL DEFAULT 0,
    removed_files  integer NOT NULL DEFAULT 0,
    created_at     timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX workspace_activity_project ON workspace_activity (project_id, id);
CREATE INDEX workspace_activity_workspace ON workspace_activity (workspace_id, id);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON workspace_activity
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

ALTER TABLE workspace_activity ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY members_read ON workspace_activity FOR SELECT
    USING (project_id = ANY ((SELECT my_projects())::uuid[]));
CREATE POLICY members_insert ON workspace_activity FOR INSERT
    WITH CHECK (project_id = ANY ((SELECT writable_projects('viewer'))::uuid[]) AND user_id = app_user_id());
GRANT SELECT, INSERT ON workspace_activity TO depot_service;

-- Shelves -------------------------------------------------------------------------------------------------------------

ALTER TABLE shelves ADD COLUMN items_count integer NOT NULL DEFAULT 0;
GRANT UPDATE (items_count) ON shelves TO depot_service;
CREATE INDEX shelves_project ON shelves (project_id, id);

-- The same shape as items of a changelist, which they come from and go to.
ALTER TABLE shelf_items
    ADD COLUMN moved_from depot_path,
    ADD COLUMN moved_from_key text COLLATE "C",
    ADD CHECK (base_version > 0),
    ADD CHECK ((action = 'add') = (base_version IS NULL) OR action = 'integrate'),
    ADD CHECK ((action = 'move') = (moved_from IS NOT NULL)),
    ADD CHECK ((moved_from IS NULL) = (moved_from_key IS NULL));
-- A shelf's items are replaced, never edited.
REVOKE UPDATE (path, action, base_version, sha256) ON shelf_items FROM depot_service;

-- A shelf is its owner's to change, and a lead's and above.
CREATE POLICY as_owner ON shelves AS RESTRICTIVE FOR INSERT WITH CHECK (owner_id = app_user_id());
CREATE POLICY own_shelf_update ON shelves AS RESTRICTIVE FOR UPDATE
    USING (owner_id = app_user_id() OR project_id = ANY ((SELECT my_projects('lead'))::uuid[]));
CREATE POLICY own_shelf_delete ON shelves AS RESTRICTIVE FOR DELETE
    USING (owner_id = app_user_id() OR project_id = ANY ((SELECT my_projects('lead'))::uuid[]));
CREATE POLICY own_shelf_insert ON shelf_items AS RESTRICTIVE FOR INSERT
    WITH CHECK (EXISTS (SELECT FROM shelves s WHERE s.id = shelf_id AND s.project_id = shelf_items.project_id
        AND (s.owner_id = app_user_id() OR s.project_id = ANY ((SELECT my_projects('lead'))::uuid[]))));
CREATE POLICY own_shelf_delete ON shelf_items AS RESTRICTIVE FOR DELETE
    USING (EXISTS (SELECT FROM shelves s WHERE s.id = shelf_id
        AND (s.owner_id = app_user_id() OR s.project_id = ANY ((SELECT my_projects('lead'))::uuid[]))));

-- Content ------------------------------------------------------------------------------------------------------------

-- A hash is not a capability (invariant 3), also for what a submit or a shelf makes a project refer to: who brings in
-- content that is new to a project has sent it there. Without an identity, row-level security has the say.
CREATE FUNCTION refuse_unproved_content() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    IF app_user_id() IS NOT NULL AND EXISTS (
        SELECT FROM referred n WHERE NOT EXISTS (
            SELECT FROM upload_receipts r
            WHERE r.project_id = n.project_id AND r.user_id = app_user_id() AND r.sha256 = n.sha256)) THEN
        RAISE EXCEPTION 'content that its user has not sent' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;
REVOKE EXECUTE ON FUNCTION refuse_unproved_content FROM PUBLIC;
CREATE TRIGGER refuse_unproved_content AFTER INSERT ON project_blobs REFERENCING NEW TABLE AS referred
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_unproved_content();
