-- Search, branch history and protection, labels.

-- History of a branch ------------------------------------------------------------------------------------------------

CREATE INDEX changelists_submitted ON changelists (branch_id, number) WHERE status = 'submitted';

-- Protection ---------------------------------------------------------------------------------------------------------

-- A submit of any contributor updates head_no, so the policy alone cannot tell it from a change of the rules.
CREATE FUNCTION keep_protection() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public AS $$
BEGIN
    IF app_user_id() IS NOT NULL AND NEW.project_id <> ALL (writable_projects('lead')) THEN
        RAISE EXCEPTION 'only leads and above change a branch' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keep_protection BEFORE UPDATE OF
    description, submit_role, require_review, require_validation, approve_role, required_approvals ON branches
    FOR EACH ROW EXECUTE FUNCTION keep_protection();

-- Labels -------------------------------------------------------------------------------------------------------------

ALTER TABLE branches ADD CONSTRAINT branches_of_project UNIQUE (project_id, id);
ALTER TABLE labels
    ADD CHECK (length(name) <= 200 AND name ~ '^([A-Za-z]|[0-9]+[A-Za-z._-])[A-Za-z0-9._-]*$'),
    ADD CHECK (at_no >= 0),
    ADD FOREIGN KEY (project_id, branch_id) REFERENCES branches (project_id, id);
CREATE UNIQUE INDEX labels_name ON labels (project_id, lower(name));

-- Assets and their search --------------------------------------------------------------------------------------------

-- Submit updates last_version only, and is in the history already.
CREATE TRIGGER audit AFTER UPDATE OF asset_type, tags, metadata ON assets
    FOR EACH ROW WHEN ((OLD.asset_type, OLD.tags, OLD.metadata) IS DISTINCT FROM (NEW.asset_type, NEW.tags, NEW.metadata))
    EXECUTE FUNCTION audit();

CREATE EXTENSION IF NOT EXISTS pg_trgm;
CREATE INDEX assets_file_name ON assets USING gin (substring(path_key FROM '[^/]*$') gin_trgm_ops);
CREATE INDEX assets_tags ON assets USING gin (tags);
-- A rare tag has to be in the sample: else the planner takes it for as frequent as half of those that are.
ALTER TABLE assets ALTER COLUMN tags SET STATISTICS 1000;
CREATE INDEX assets_metadata ON assets USING gin (metadata jsonb_path_ops);
CREATE INDEX assets_type ON assets (project_id, asset_type, path_key);
CREATE INDEX asset_versions_author ON asset_versions (project_id, author_id, created_at);
CREATE INDEX asset_versions_changed ON asset_versions (project_id, created_at);
-- Submit then raises last_version in place, without an entry in each index.
ALTER TABLE assets SET (fillfactor = 85);

-- Assets in path order with their head on a branch: live ones, or deleted ones. NULL filters nothing.
-- SECURITY DEFINER, because LIKE and @> are not leakproof: below a row-level policy no index would serve them. So it
-- checks membership and permissions by path itself. The statement is put together from the filters that are there, so that each
-- combination has a plan of its own.
CREATE FUNCTION search_assets(
    project uuid, branch uuid, prefix text, name_pattern text, type_name text, wanted_tags text[], wanted_metadata jsonb,
    author text, since timestamptz, deleted boolean, after text, row_limit integer)
RETURNS TABLE (id uuid, project_id uuid, path_key text, path text, asset_type text, tags text[], metadata jsonb,
    last_version integer, created_at timestamptz, version integer, sha256 bytea, size_bytes bigint, changelist_no bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public SET enable_bitmapscan = on SET jit = off AS $$
DECLARE
    author_id uuid := (SELECT u.id FROM users u WHERE lower(u.username) = lower(author));
BEGIN
    IF project <> ALL (my_projects()) OR (author IS NOT NULL AND author_id IS NULL)
       OR NOT EXISTS (SELECT FROM branches b WHERE b.id = branch AND b.project_id = project) THEN
        RETURN;
    END IF;
    RETURN QUERY EXECUTE concat_ws(E'\nAND ',
        'SELECT a.id, a.project_id, a.path_key, a.path::text, a.asset_type, a.tags, a.metadata, a.last_version,
                a.created_at, h.version, h.sha256::bytea, h.size_bytes, h.from_no
         FROM assets a CROSS JOIN LATERAL branch_head($2, a.path_key) h
         WHERE a.project_id = $1 AND a.path_key > $11 AND (h.version IS NULL) = $10',
        CASE WHEN project = ANY (restricted_projects()) THEN 'my_path_access($1, a.path_key) >= ''read''' END,
        CASE WHEN prefix IS NOT NULL THEN 'a.path_key >= $3 AND a.path_key < $3 || U&''\+10FFFF''' END,
        CASE WHEN name_pattern IS NOT NULL THEN 'substring(a.path_key FROM ''[^/]*$'') LIKE $4' END,
        CASE WHEN type_name IS NOT NULL THEN 'a.asset_type = $5' END,
        CASE WHEN wanted_tags IS NOT NULL THEN 'a.tags @> $6' END,
        CASE WHEN wanted_metadata IS NOT NULL THEN 'a.metadata @> $7' END,
        CASE WHEN author_id IS NOT NULL OR since IS NOT NULL THEN
            'EXISTS (SELECT FROM asset_versions v WHERE v.asset_id = a.id AND v.project_id = $1'
            || CASE WHEN author_id IS NOT NULL THEN ' AND v.author_id = $8' ELSE '' END
            || CASE WHEN since IS NOT NULL THEN ' AND v.created_at >= $9' ELSE '' END || ')' END
        ) || ' ORDER BY a.path_key LIMIT $12'
        USING project, branch, prefix, name_pattern, type_name, wanted_tags, wanted_metadata, author_id, since, deleted,
            after, row_limit;
END $$;
REVOKE EXECUTE ON FUNCTION
    keep_protection(),
    search_assets(uuid, uuid, text, text, text, text[], jsonb, text, timestamptz, boolean, text, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    keep_protection(),
    search_assets(uuid, uuid, text, text, text, text[], jsonb, text, timestamptz, boolean, text, integer) TO depot_service;
