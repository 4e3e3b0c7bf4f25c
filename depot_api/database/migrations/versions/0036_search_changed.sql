-- Who changed what and when is not in the statistics of a project either: in one that nobody had touched for a year,
-- beside one that is busy, all paths were walked. So that too has a window, and beyond it the index of versions is asked.
CREATE OR REPLACE FUNCTION search_assets(
    project uuid, branch uuid, prefix text, name_pattern text, type_name text, wanted_tags text[], wanted_metadata jsonb,
    author text, since timestamptz, deleted boolean, after text, row_limit integer)
RETURNS TABLE (id uuid, project_id uuid, path_key text, path text, asset_type text, tags text[], metadata jsonb,
    last_version integer, created_at timestamptz, version integer, sha256 bytea, size_bytes bigint, changelist_no bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public SET enable_bitmapscan = on SET jit = off SET random_page_cost = 1.1 AS $$
DECLARE
    walked CONSTANT integer := 5000;
    author_id uuid := (SELECT u.id FROM users u WHERE lower(u.username) = lower(author));
    in_order text := concat_ws(' AND ',
        'a.project_id = $1 AND a.path_key > $2',
        CASE WHEN prefix IS NOT NULL THEN 'a.path_key >= $3 AND a.path_key < $3 || U&''\+10FFFF''' END,
        CASE WHEN type_name IS NOT NULL THEN 'a.asset_type = $4' END);
    chosen text := concat_ws(' AND ',
        'true',
        CASE WHEN project = ANY (restricted_projects()) THEN 'my_path_access($1, a.path_key) >= ''read''' END,
        CASE WHEN name_pattern IS NOT NULL THEN 'substring(a.path_key FROM ''[^/]*$'') LIKE $5' END,
        CASE WHEN wanted_tags IS NOT NULL THEN 'a.tags @> $6' END,
        CASE WHEN wanted_metadata IS NOT NULL THEN 'a.metadata @> $7' END);
    changed text := 'FROM asset_versions v WHERE v.project_id = $1'
        || CASE WHEN author_id IS NOT NULL THEN ' AND v.author_id = $8' ELSE '' END
        || CASE WHEN since IS NOT NULL THEN ' AND v.created_at >= $9' ELSE '' END;
    of_changed text := CASE WHEN num_nonnulls(author_id, since) > 0 THEN
        format('EXISTS (SELECT %s AND v.asset_id = a.id)', changed) END;
    beyond text := 'assets a';
    shown CONSTANT text :=
        'SELECT a.id, a.project_id, a.path_key, a.path::text, a.asset_type, a.tags, a.metadata, a.last_version,
                a.created_at, h.version, h.sha256::bytea, h.size_bytes, h.from_no
         FROM %s CROSS JOIN LATERAL branch_head($10, a.path_key) h
         WHERE (h.version IS NULL) = $11 AND %s ORDER BY a.path_key LIMIT $12';
    window_end text;
    found integer;
BEGIN
    IF project <> ALL (my_projects()) OR (author IS NOT NULL AND author_id IS NULL)
       OR NOT EXISTS (SELECT FROM branches b WHERE b.id = branch AND b.project_id = project) THEN
        RETURN;
    END IF;
    IF num_nonnulls(name_pattern, wanted_tags, wanted_metadata, of_changed) > 0 THEN
        EXECUTE format('SELECT a.path_key FROM assets a WHERE %s ORDER BY a.path_key OFFSET %s LIMIT 1', in_order, walked)
            INTO window_end USING project, after, prefix, type_name;
    END IF;
    RETURN QUERY EXECUTE format(shown, 'assets a',
            concat_ws(' AND ', in_order, chosen, of_changed, CASE WHEN window_end IS NOT NULL THEN 'a.path_key <= $13' END))
        USING project, after, prefix, type_name, name_pattern, wanted_tags, wanted_metadata, author_id, since, branch,
            deleted, row_limit, window_end;
    GET DIAGNOSTICS found = ROW_COUNT;
    IF window_end IS NULL OR found = row_limit THEN
        RETURN;
    END IF;
    IF num_nonnulls(name_pattern, wanted_tags, wanted_metadata) = 0 THEN
        -- By time and OFFSET 0: a scan of the index of changes, and a lookup for each, whatever statistics say.
        beyond := format('(SELECT DISTINCT asset_id FROM (SELECT v.asset_id %s ORDER BY v.created_at OFFSET 0) v) c
            CROSS JOIN LATERAL (SELECT * FROM assets WHERE assets.id = c.asset_id OFFSET 0) a', changed);
        of_changed := NULL;
    END IF;
    RETURN QUERY EXECUTE
            format('WITH chosen AS MATERIALIZED (SELECT a.* FROM %s WHERE %s ORDER BY a.path_key) ',
                beyond, concat_ws(' AND ', in_order, chosen, of_changed))
            || format(shown, 'chosen a', 'true')
        USING project, window_end, prefix, type_name, name_pattern, wanted_tags, wanted_metadata, author_id, since,
            branch, deleted, row_limit - found;
END $$;
