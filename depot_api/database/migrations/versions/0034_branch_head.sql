-- A head is one lookup, whatever statistics say. The index by changelist serves only who says from_no > 0, which is true
-- of every row: with it, a planner that takes a branch for small looked for 100 paths among 100,000 rows.
ALTER TABLE branch_heads ADD CHECK (from_no > 0);
DROP INDEX branch_heads_from_no;
CREATE INDEX branch_heads_from_no ON branch_heads (branch_id, from_no) WHERE from_no > 0;

CREATE OR REPLACE FUNCTION branch_touched(left_branch uuid, left_at bigint, right_branch uuid, right_at bigint)
RETURNS TABLE (path_key text) LANGUAGE sql STABLE AS $$
    WITH seen AS (
        SELECT l.ancestor_id, least(l.upto_no, left_at) AS left_no, 0 AS right_no
        FROM branch_lineage l WHERE l.branch_id = left_branch
        UNION ALL
        SELECT l.ancestor_id, 0, least(l.upto_no, right_at)
        FROM branch_lineage l WHERE l.branch_id = right_branch),
    ranges AS (
        SELECT ancestor_id, least(max(left_no), max(right_no)) AS after_no,
               greatest(max(left_no), max(right_no)) AS upto_no
        FROM seen GROUP BY ancestor_id)
    SELECT DISTINCT b.path_key
    FROM ranges r CROSS JOIN LATERAL (
        SELECT h.path_key FROM branch_heads h
        WHERE h.branch_id = r.ancestor_id AND h.from_no > 0 AND h.from_no > r.after_no AND h.from_no <= r.upto_no
        OFFSET 0) b
$$;

-- Ancestors in order, the nearest first, so that the first that has the path ends it: the others are not looked up.
CREATE OR REPLACE FUNCTION branch_head(branch uuid, key text, at_no bigint DEFAULT 9223372036854775807)
RETURNS SETOF branch_heads LANGUAGE sql STABLE AS $$
    SELECT h.* FROM (
        SELECT ancestor_id, upto_no, depth FROM branch_lineage WHERE branch_id = branch ORDER BY depth OFFSET 0) l
    CROSS JOIN LATERAL (
        SELECT * FROM branch_heads b
        WHERE b.branch_id = l.ancestor_id AND b.path_key = key AND b.from_no <= least(l.upto_no, at_no)
        ORDER BY b.from_no DESC LIMIT 1
    ) h
    ORDER BY l.depth LIMIT 1
$$;
