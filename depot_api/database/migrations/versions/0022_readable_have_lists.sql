-- What somebody may read changes without a submit. The range that a sparse sync goes by then says nothing any more.

CREATE FUNCTION compare_project_again() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    UPDATE workspaces SET since_no = NULL
        WHERE project_id IN (SELECT DISTINCT project_id FROM changed) AND since_no IS NOT NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER compare_again_insert AFTER INSERT ON path_permissions REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION compare_project_again();
CREATE TRIGGER compare_again_delete AFTER DELETE ON path_permissions REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION compare_project_again();

-- A role brings other rules, and none at all for a manager or a studio admin.
CREATE FUNCTION compare_member_again() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    UPDATE workspaces w SET since_no = NULL
        WHERE w.project_id = NEW.project_id AND w.owner_id = NEW.user_id AND w.since_no IS NOT NULL
          AND EXISTS (SELECT FROM path_permissions p WHERE p.project_id = w.project_id);
    RETURN NULL;
END $$;
CREATE TRIGGER compare_again AFTER INSERT OR UPDATE OF role ON project_members
    FOR EACH ROW EXECUTE FUNCTION compare_member_again();

CREATE FUNCTION compare_user_again() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    UPDATE workspaces w SET since_no = NULL
        WHERE w.owner_id = NEW.id AND w.since_no IS NOT NULL
          AND EXISTS (SELECT FROM path_permissions p WHERE p.project_id = w.project_id);
    RETURN NULL;
END $$;
CREATE TRIGGER compare_again AFTER UPDATE OF studio_role ON users
    FOR EACH ROW WHEN (OLD.studio_role <> NEW.studio_role) EXECUTE FUNCTION compare_user_again();

REVOKE EXECUTE ON FUNCTION compare_project_again(), compare_member_again(), compare_user_again() FROM PUBLIC;

-- A have-list is its owner's own and names what they were given. It has to be seen, or what they may not read any more
-- would never be taken away.
DROP POLICY readable_path ON workspace_files;
