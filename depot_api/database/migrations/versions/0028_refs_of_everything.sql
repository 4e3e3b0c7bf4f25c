-- Refs that say all that a rebuilt catalogue needs. Written anew below, for what was written before says less.

DROP FUNCTION ref_project(uuid);
CREATE FUNCTION ref_project(wanted uuid)
RETURNS TABLE (id uuid, name text, description text, status project_status, quota_bytes bigint, default_branch_id uuid,
               created_by jsonb, created_at timestamptz, members jsonb, path_permissions jsonb, typemap jsonb,
               labels jsonb)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    SELECT p.id, p.name, p.description, p.status, p.quota_bytes, p.default_branch_id, ref_user(p.created_by),
           p.created_at,
           (SELECT coalesce(jsonb_agg(jsonb_build_object('user', ref_user(m.user_id), 'role', m.role,
                                                         'created_at', m.created_at) ORDER BY m.user_id), '[]')
            FROM project_members m WHERE m.project_id = p.id),
           (SELECT coalesce(jsonb_agg(jsonb_build_object('pattern', r.pattern, 'user', ref_user(r.user_id),
                                                         'role', r.role, 'access', r.access) ORDER BY r.position), '[]')
            FROM path_permissions r WHERE r.project_id = p.id),
           (SELECT coalesce(jsonb_agg(to_jsonb(t) - 'project_id' - 'position' ORDER BY t.position), '[]')
            FROM typemap_rules t WHERE t.project_id = p.id),
           (SELECT coalesce(jsonb_agg(jsonb_build_object('name', l.name, 'branch_id', l.branch_id, 'at_no', l.at_no,
                                                         'created_by', ref_user(l.created_by),
                                                         'created_at', l.created_at) ORDER BY l.name), '[]')
            FROM labels l WHERE l.project_id = p.id)
    FROM projects p WHERE p.id = wanted
$$;

DROP FUNCTION ref_branches(uuid, uuid);
-- The branches of a project: `wanted`, or all of them.
CREATE FUNCTION ref_branches(project uuid, wanted uuid DEFAULT NULL)
RETURNS TABLE (id uuid, name text, description text, parent_id uuid, parent_at bigint, submit_role project_role,
               require_review boolean, require_validation boolean, approve_role project_role,
               required_approvals integer, created_by jsonb, created_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    SELECT b.id, b.name, b.description, b.parent_id, b.parent_at, b.submit_role, b.require_review,
           b.require_validation, b.approve_role, b.required_approvals, ref_user(b.created_by), b.created_at
    FROM branches b WHERE b.project_id = project AND (wanted IS NULL OR b.id = wanted)
$$;

-- A merge that has landed. `changelist_no` is null where nothing was to do.
CREATE FUNCTION ref_merge(project uuid, wanted uuid)
RETURNS TABLE (id uuid, source_branch_id uuid, source_at bigint, target_branch_id uuid, target_at bigint,
               landed_no bigint, changelist_id uuid, changelist_no bigint, description text, merge_text boolean,
               paths_count integer, size_bytes bigint, created_by jsonb, created_at timestamptz,
               completed_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    SELECT m.id, m.source_branch_id, m.source_at, m.target_branch_id, m.target_at, m.landed_no, m.changelist_id,
           c.number, m.description, m.merge_text, m.paths_count, m.size_bytes, ref_user(m.created_by), m.created_at,
           m.completed_at
    FROM branch_merges m JOIN changelists c ON c.id = m.changelist_id
    WHERE m.project_id = project AND m.id = wanted AND m.status = 'merged'
$$;

CREATE FUNCTION ref_obliteration(project uuid, wanted uuid)
RETURNS TABLE (id uuid, reason text, status obliteration_status, requested_by jsonb, requested_at timestamptz,
               due_at timestamptz, finished_at timestamptz, versions jsonb)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    SELECT o.id, o.reason, o.status, ref_user(o.requested_by), o.requested_at, o.due_at, o.finished_at,
           (SELECT coalesce(jsonb_agg(jsonb_build_object('asset_id', v.asset_id, 'version', v.number)
                                      ORDER BY v.asset_id, v.number), '[]')
            FROM obliterated_versions v WHERE v.obliteration_id = o.id)
    FROM obliterations o WHERE o.project_id = project AND o.id = wanted
$$;

DROP FUNCTION ref_versions(uuid, text, integer);
-- What a submitted changelist did, one row for each path it changed, by path key. A move changes two.
CREATE FUNCTION ref_versions(wanted uuid, after_key text, max_rows integer)
RETURNS TABLE (path_key text, asset_id uuid, path text, version integer, sha256 text, size_bytes bigint,
               action item_action, base_version integer, moved_from text, moved_to text, source_branch_id uuid,
               source_version integer, project_id uuid, branch_id uuid, branch text, changelist_id uuid,
               changelist_no bigint, changelist_refs bigint, description text, submitted_at timestamptz, author jsonb)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    -- Materialized, so that what is the same for all rows is found once.
    WITH submitted AS MATERIALIZED (
        SELECT c.*, b.name AS branch, ref_user(c.author_id) AS author,
               (SELECT count(*) + count(*) FILTER (WHERE n.action = 'move') FROM changelist_items n
                WHERE n.changelist_id = c.id) AS refs
        FROM changelists c JOIN branches b ON b.id = c.branch_id WHERE c.id = wanted AND c.status = 'submitted')
    SELECT i.key, h.asset_id, h.path, h.version, encode(h.sha256, 'hex'), h.size_bytes, i.action, i.base_version,
           i.moved_from, i.moved_to, i.source_branch_id, i.source_version, c.project_id, c.branch_id, c.branch, c.id,
           c.number, c.refs, c.description, c.submitted_at, c.author
    FROM submitted c
    CROSS JOIN LATERAL (
        SELECT t.path_key AS key, t.action, t.base_version, t.moved_from, NULL::text AS moved_to, t.source_branch_id,
               t.source_version
        FROM changelist_items t WHERE t.changelist_id = c.id AND t.path_key > after_key
        UNION ALL
        SELECT t.moved_from_key, t.action, t.base_version, NULL, t.path, NULL, NULL
        FROM changelist_items t WHERE t.changelist_id = c.id AND t.action = 'move' AND t.moved_from_key > after_key
        ORDER BY 1 LIMIT max_rows) i
    CROSS JOIN LATERAL (
        -- `+ 0` keeps it off the index by number, which would read the whole changelist for each of its rows.
        SELECT * FROM branch_heads n
        WHERE n.branch_id = c.branch_id AND n.path_key = i.key AND n.from_no + 0 = c.number OFFSET 0) h
    ORDER BY i.key
$$;

REVOKE EXECUTE ON FUNCTION ref_project, ref_branches, ref_merge, ref_obliteration, ref_versions FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ref_project, ref_branches, ref_merge, ref_obliteration, ref_versions TO depot_service;

-- Its reader begins again: writing a document once more changes nothing but what it says more.
UPDATE outbox_consumers SET xact_id = '0', event_id = 0 WHERE name = 'refs';
