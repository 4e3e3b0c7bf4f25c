-- Permissions by path, for members below manager: an ordered list, of which the last rule that matches counts, as in
-- Helix's protections table. Where no rule matches, the member's role says everything.

-- Ascending: each includes those before it.
CREATE TYPE path_access AS ENUM ('none', 'read', 'write', 'delete');

CREATE TABLE path_permissions (
    project_id uuid NOT NULL REFERENCES projects,
    position   integer NOT NULL CHECK (position > 0),
    pattern    text NOT NULL,
    regex      text NOT NULL,
    user_id    uuid REFERENCES users,
    role       project_role CHECK (role < 'manager'),
    access     path_access NOT NULL,
    PRIMARY KEY (project_id, position),
    CHECK (user_id IS NULL OR role IS NULL)
);
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON path_permissions FOR EACH ROW EXECUTE FUNCTION audit();
ALTER TABLE path_permissions ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY members_read ON path_permissions FOR SELECT USING (project_id = ANY ((SELECT my_projects())::uuid[]));
CREATE POLICY managers_insert ON path_permissions FOR INSERT
    WITH CHECK (project_id = ANY ((SELECT writable_projects('manager'))::uuid[]));
CREATE POLICY managers_delete ON path_permissions FOR DELETE
    USING (project_id = ANY ((SELECT writable_projects('manager'))::uuid[]));
GRANT SELECT, INSERT, DELETE ON path_permissions TO depot_service;

-- The projects in which some rule is about the asker. Looked up once per statement; where it is empty, and it mostly
-- is, no row costs more than one comparison.
CREATE FUNCTION restricted_projects() RETURNS uuid[]
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    SELECT coalesce(array_agg(DISTINCT p.project_id), '{}')
    FROM path_permissions p JOIN project_members m ON m.project_id = p.project_id AND m.user_id = app_user_id()
    WHERE m.role < 'manager' AND NOT app_user_is_admin()
      AND (p.user_id IS NULL OR p.user_id = m.user_id) AND (p.role IS NULL OR p.role = m.role)
$$;

-- What the asker may do at a path, beside what the role says. Only to be asked in a restricted project.
CREATE FUNCTION my_path_access(project uuid, key text) RETURNS path_access
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    SELECT coalesce((
        SELECT p.access FROM path_permissions p
        JOIN project_members m ON m.project_id = p.project_id AND m.user_id = app_user_id()
        WHERE p.project_id = project AND (p.user_id IS NULL OR p.user_id = m.user_id)
          AND (p.role IS NULL OR p.role = m.role) AND key ~ p.regex
        ORDER BY p.position DESC LIMIT 1), 'delete')
$$;

-- A path that may not be read is not there, in whatever table it is named.
DO $$
DECLARE named text;
BEGIN
    FOREACH named IN ARRAY ARRAY['assets', 'branch_heads', 'changelist_items', 'shelf_items', 'locks', 'workspace_files',
            'merge_conflicts'] LOOP
        EXECUTE format('CREATE POLICY readable_path ON %I AS RESTRICTIVE FOR SELECT
            USING (project_id <> ALL ((SELECT restricted_projects())::uuid[])
                   OR my_path_access(project_id, path_key) >= ''read'')', named);
    END LOOP;
END $$;
CREATE POLICY readable_path ON asset_versions AS RESTRICTIVE FOR SELECT
    USING (project_id <> ALL ((SELECT restricted_projects())::uuid[])
           OR EXISTS (SELECT FROM assets a WHERE a.id = asset_id));
CREATE POLICY writable_path ON branch_heads AS RESTRICTIVE FOR INSERT
    WITH CHECK (project_id <> ALL ((SELECT restricted_projects())::uuid[])
        OR my_path_access(project_id, path_key) >= CASE WHEN version IS NULL THEN 'delete' ELSE 'write' END::path_access);

REVOKE EXECUTE ON FUNCTION restricted_projects(), my_path_access(uuid, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION restricted_projects(), my_path_access(uuid, text) TO depot_service;
