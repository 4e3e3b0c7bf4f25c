-- A head by one index, whatever statistics say. With an equality the order would be that of branch_heads_from_no too,
-- and a planner that takes a branch for small read it whole: 83,100 rows for 100 paths.
CREATE OR REPLACE FUNCTION branch_head(branch uuid, key text, at_no bigint DEFAULT 9223372036854775807)
RETURNS SETOF branch_heads LANGUAGE sql STABLE AS $$
    SELECT h.* FROM branch_lineage l
    CROSS JOIN LATERAL (
        SELECT * FROM branch_heads b
        WHERE b.branch_id = l.ancestor_id AND b.path_key BETWEEN key AND key AND b.from_no <= least(l.upto_no, at_no)
        ORDER BY b.path_key, b.from_no DESC LIMIT 1
    ) h
    WHERE l.branch_id = branch ORDER BY l.depth LIMIT 1
$$;
