-- The other way round of move_delete.
ALTER TYPE merge_conflict_kind ADD VALUE 'delete_move' AFTER 'move_delete';

-- The keys of all paths that a conflict names: a move has more than the one that it goes by. Of a move from before they
-- are not known, so it is not shown to anybody whom a rule is about.
ALTER TABLE merge_conflicts ADD COLUMN path_keys text[];
ALTER TABLE merge_conflicts DISABLE TRIGGER USER;
UPDATE merge_conflicts SET path_keys = ARRAY[path_key]
    WHERE path = ALL (array_remove(ARRAY[base_path, source_path, target_path]::text[], NULL));
ALTER TABLE merge_conflicts ENABLE TRIGGER USER;
ALTER POLICY readable_path ON merge_conflicts
    USING (project_id <> ALL ((SELECT restricted_projects())::uuid[])
           OR (path_keys IS NOT NULL AND NOT EXISTS (
                   SELECT FROM unnest(path_keys) key WHERE my_path_access(project_id, key) < 'read')));
ALTER POLICY members_update ON merge_conflicts
    USING (project_id = ANY ((SELECT writable_projects('contributor'))::uuid[])
        AND (project_id <> ALL ((SELECT restricted_projects())::uuid[])
             OR (path_keys IS NOT NULL AND NOT EXISTS (
                     SELECT FROM unnest(path_keys) key WHERE my_path_access(project_id, key) < 'write'))));

-- How many conflicts there are, also where the asker is not shown them all: a merge waits for those too.
CREATE FUNCTION count_conflicts(merge uuid, OUT conflicts_count bigint, OUT unresolved_count bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    SELECT count(*), count(*) FILTER (WHERE c.resolution IS NULL) FROM merge_conflicts c
    WHERE c.merge_id = merge AND c.project_id = ANY ((SELECT my_projects())::uuid[])
$$;
REVOKE EXECUTE ON FUNCTION count_conflicts(uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION count_conflicts(uuid) TO depot_service;

-- What failed may name any path of a merge.
ALTER POLICY readable_path ON events
    USING (project_id <> ALL ((SELECT restricted_projects())::uuid[])
           OR (NOT payload ? 'error' AND
               CASE WHEN path_keys IS NULL THEN kind !~ '^(asset|lock)\.' AND kind <> 'merge.conflicts_resolved'
               ELSE NOT EXISTS (SELECT FROM unnest(path_keys) key WHERE my_path_access(project_id, key) < 'read') END));
