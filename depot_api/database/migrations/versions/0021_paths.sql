-- Whoever may only read a path ----------------------------------------------------------------------------------------

-- With a check, and not by USING alone: that would leave rows out of an update without a word.
DO $$
DECLARE named text;
BEGIN
    FOREACH named IN ARRAY ARRAY['assets', 'locks'] LOOP
        EXECUTE format('CREATE POLICY writable_path_insert ON %I AS RESTRICTIVE FOR INSERT
            WITH CHECK (project_id <> ALL ((SELECT restricted_projects())::uuid[])
                        OR my_path_access(project_id, path_key) >= ''write'')', named);
        EXECUTE format('CREATE POLICY writable_path_update ON %I AS RESTRICTIVE FOR UPDATE USING (true)
            WITH CHECK (project_id <> ALL ((SELECT restricted_projects())::uuid[])
                        OR my_path_access(project_id, path_key) >= ''write'')', named);
    END LOOP;
END $$;
CREATE POLICY writable_path ON shelf_items AS RESTRICTIVE FOR INSERT
    WITH CHECK (project_id <> ALL ((SELECT restricted_projects())::uuid[])
        OR (my_path_access(project_id, path_key) >= CASE action WHEN 'delete' THEN 'delete' ELSE 'write' END::path_access
            AND (moved_from_key IS NULL OR my_path_access(project_id, moved_from_key) = 'delete')));

-- Whoever may not read a path -----------------------------------------------------------------------------------------

-- An item that was moved names two paths.
DO $$
DECLARE named text;
BEGIN
    FOREACH named IN ARRAY ARRAY['changelist_items', 'shelf_items'] LOOP
        EXECUTE format('ALTER POLICY readable_path ON %I
            USING (project_id <> ALL ((SELECT restricted_projects())::uuid[])
                   OR (my_path_access(project_id, path_key) >= ''read''
                       AND (moved_from_key IS NULL OR my_path_access(project_id, moved_from_key) >= ''read'')))', named);
    END LOOP;
END $$;

-- How many items there are, also where the asker is not shown them all: that is how it is found out.
CREATE FUNCTION count_items(changelist uuid) RETURNS integer
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    SELECT count(*)::integer FROM changelist_items i
    WHERE i.changelist_id = changelist AND i.project_id = ANY (my_projects())
$$;

-- A rule is about a path's key, which only the service can make (paths.path_key). What was recorded without it before
-- is not shown to anybody whom a rule is about.
ALTER TABLE review_comments
    ADD COLUMN path_key text COLLATE "C",
    ADD CHECK ((path IS NULL) = (path_key IS NULL)) NOT VALID;
CREATE POLICY readable_path ON review_comments AS RESTRICTIVE FOR SELECT
    USING (project_id <> ALL ((SELECT restricted_projects())::uuid[])
           OR path IS NULL OR my_path_access(project_id, path_key) >= 'read');

ALTER TABLE lock_breaks
    ADD COLUMN path_key text COLLATE "C",
    ADD CHECK (path_key IS NOT NULL) NOT VALID;
CREATE POLICY readable_path ON lock_breaks AS RESTRICTIVE FOR SELECT
    USING (project_id <> ALL ((SELECT restricted_projects())::uuid[]) OR my_path_access(project_id, path_key) >= 'read');

CREATE OR REPLACE FUNCTION break_lock(broken_id uuid, why text) RETURNS SETOF locks
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE
    project uuid := (SELECT project_id FROM locks WHERE id = broken_id);
    broken locks;
BEGIN
    IF project <> ALL (writable_projects('lead')) THEN
        RAISE EXCEPTION 'only leads and above break locks' USING ERRCODE = 'insufficient_privilege';
    END IF;
    PERFORM FROM changelist_counters WHERE project_id = project FOR SHARE;
    DELETE FROM locks WHERE id = broken_id RETURNING * INTO broken;
    IF FOUND THEN
        INSERT INTO lock_breaks (project_id, lock_id, path_key, path, holder_id, fencing_number, broken_by, reason)
            VALUES (project, broken.id, broken.path_key, broken.path, broken.holder_id, broken.fencing_number,
                    app_user_id(), why);
        RETURN NEXT broken;
    END IF;
END $$;

-- The keys of all paths that the payload names.
ALTER TABLE events ADD COLUMN path_keys text[];
CREATE POLICY readable_path ON events AS RESTRICTIVE FOR SELECT
    USING (project_id <> ALL ((SELECT restricted_projects())::uuid[])
           OR CASE WHEN path_keys IS NULL THEN kind !~ '^(asset|lock)\.' AND kind <> 'merge.conflicts_resolved'
              ELSE NOT EXISTS (SELECT FROM unnest(path_keys) key WHERE my_path_access(project_id, key) < 'read') END);

-- A cursor stays one, also at an event that its reader is not shown any more.
CREATE FUNCTION event_xact_id(project uuid, event bigint) RETURNS xid8
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    SELECT xact_id FROM events WHERE id = event AND project_id = project AND project = ANY (my_projects())
$$;

REVOKE EXECUTE ON FUNCTION count_items(uuid), event_xact_id(uuid, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION count_items(uuid), event_xact_id(uuid, bigint) TO depot_service;
