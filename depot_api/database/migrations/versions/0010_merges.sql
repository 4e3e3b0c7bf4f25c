-- What two points of the project may show differently ----------------------------------------------------------------
-- Only paths that were touched after the common point of two lineages: for each ancestor of either side, the rows that
-- one side sees and the other does not. OFFSET 0 keeps an order of paths out of that scan: in it, all would be read.
CREATE FUNCTION branch_touched(left_branch uuid, left_at bigint, right_branch uuid, right_at bigint)
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
        WHERE h.branch_id = r.ancestor_id AND h.from_no > r.after_no AND h.from_no <= r.upto_no OFFSET 0) b
$$;

-- Where a path went: asked of the changelist that took it away.
CREATE INDEX changelist_items_moved ON changelist_items (changelist_id, moved_from_key) WHERE moved_from_key IS NOT NULL;

-- Merges -------------------------------------------------------------------------------------------------------------

ALTER TABLE branch_merges
    ADD COLUMN description   text NOT NULL DEFAULT '',
    ADD COLUMN merge_text    boolean NOT NULL DEFAULT true,
    -- What the plan of the staged result was made against; null before it is planned.
    ADD COLUMN target_at     bigint,
    ADD COLUMN paths_count   integer NOT NULL DEFAULT 0,
    ADD COLUMN size_bytes    bigint NOT NULL DEFAULT 0,
    -- From this changelist on, the target knows what the source was at source_at: the base of every later merge.
    ADD COLUMN landed_no     bigint,
    ADD COLUMN cancelled_at  timestamptz,
    -- Both sides of the conflicts, for people to look at.
    ADD COLUMN shelf_id      uuid REFERENCES shelves ON DELETE SET NULL,
    ADD CHECK ((status = 'merged') = (landed_no IS NOT NULL)),
    ADD CHECK ((status = 'cancelled') = (cancelled_at IS NOT NULL));
CREATE UNIQUE INDEX branch_merges_changelist ON branch_merges (changelist_id);
CREATE INDEX branch_merges_shelf ON branch_merges (shelf_id) WHERE shelf_id IS NOT NULL;
CREATE INDEX branch_merges_page ON branch_merges (project_id, id);
CREATE INDEX branch_merges_landed ON branch_merges (project_id, landed_no, completed_at) WHERE status = 'merged';
GRANT UPDATE (target_at, paths_count, size_bytes, landed_no, cancelled_at, shelf_id) ON branch_merges TO depot_service;

-- Invariant 10 of the model. What is landed is the merge's own changelist, or nothing where nothing was to do.
CREATE OR REPLACE FUNCTION hold_merge_at_gate() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.status IN ('merged', 'cancelled') THEN
        RAISE EXCEPTION 'merge % is % and never changes again', OLD.id, OLD.status USING ERRCODE = 'restrict_violation';
    END IF;
    IF NEW.status <> 'merged' THEN
        RETURN NEW;
    END IF;
    IF NOT EXISTS (SELECT FROM merge_jobs WHERE merge_id = NEW.id AND job_type = 'submit_gate'
                   AND status = 'completed' AND submit_gate_passed)
       OR EXISTS (SELECT FROM merge_jobs WHERE merge_id = NEW.id AND status IN ('queued', 'running', 'staged'))
       OR EXISTS (SELECT FROM merge_conflicts WHERE merge_id = NEW.id AND resolution IS NULL)
       OR NOT EXISTS (SELECT FROM changelists WHERE id = NEW.changelist_id AND branch_id = NEW.target_branch_id
                      AND (number = NEW.landed_no OR (status = 'abandoned' AND items_count = 0))) THEN
        RAISE EXCEPTION 'merge % has not passed its submit gate', NEW.id USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;

-- The other side of the gate: a merge's changelist is submitted by its gate and by nobody else.
CREATE FUNCTION submit_merge_by_gate() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    IF EXISTS (SELECT FROM branch_merges m WHERE m.changelist_id = NEW.id AND NOT EXISTS (
            SELECT FROM merge_jobs j WHERE j.merge_id = m.id AND j.job_type = 'submit_gate' AND j.status = 'running'
              AND j.leased_until > now())) THEN
        RAISE EXCEPTION 'changelist % is landed by the gate of its merge', NEW.id USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER submit_merge_by_gate BEFORE UPDATE ON changelists FOR EACH ROW
    WHEN (NEW.status = 'submitted' AND OLD.status <> 'submitted') EXECUTE FUNCTION submit_merge_by_gate();

-- A cancelled merge leaves nothing staged, whoever cancels it.
CREATE FUNCTION drop_staged() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    DELETE FROM changelist_items WHERE changelist_id = NEW.changelist_id;
    UPDATE changelists SET status = 'abandoned', items_count = 0, revision = revision + 1 WHERE id = NEW.changelist_id;
    UPDATE merge_jobs SET status = 'failed', leased_until = NULL, finished_at = now(), error = 'The merge was cancelled.'
        WHERE merge_id = NEW.id AND status IN ('queued', 'running', 'staged');
    RETURN NULL;
END $$;
CREATE TRIGGER drop_staged AFTER UPDATE ON branch_merges FOR EACH ROW
    WHEN (NEW.status = 'cancelled' AND OLD.status <> 'cancelled') EXECUTE FUNCTION drop_staged();

-- Conflicts ----------------------------------------------------------------------------------------------------------

CREATE TYPE merge_conflict_kind AS ENUM ('both_edited', 'both_added', 'edit_delete', 'delete_edit', 'move_edit',
    'edit_move', 'move_delete', 'both_moved', 'path_collision');
-- Of a text that a merge has put together from both sides.
ALTER TYPE conflict_resolution ADD VALUE 'merged';

ALTER TABLE merge_conflicts
    ADD COLUMN kind            merge_conflict_kind NOT NULL,
    ADD COLUMN base_path       depot_path,
    ADD COLUMN source_path     depot_path,
    ADD COLUMN target_path     depot_path,
    ADD COLUMN base_sha256     sha256,
    ADD COLUMN source_sha256   sha256,
    ADD COLUMN target_sha256   sha256,
    ADD COLUMN mergeable       boolean NOT NULL DEFAULT false,
    ADD COLUMN resolved_sha256 sha256 REFERENCES blobs,
    ADD CHECK ((resolved_sha256 IS NULL) = (resolution IS NULL OR resolution IN ('source', 'target')));
GRANT UPDATE (resolved_sha256) ON merge_conflicts TO depot_service;
GRANT DELETE ON merge_conflicts TO depot_service;
CREATE POLICY members_delete ON merge_conflicts FOR DELETE
    USING (project_id = ANY ((SELECT writable_projects('lead'))::uuid[]));
-- Whoever may write the path may say which version of it is right.
DROP POLICY members_update ON merge_conflicts;
CREATE POLICY members_update ON merge_conflicts FOR UPDATE
    USING (project_id = ANY ((SELECT writable_projects('contributor'))::uuid[])
        AND (project_id <> ALL ((SELECT restricted_projects())::uuid[])
             OR my_path_access(project_id, path_key) >= 'write'));
CREATE INDEX merge_conflicts_blob ON merge_conflicts (resolved_sha256) WHERE resolved_sha256 IS NOT NULL;

CREATE TABLE merge_resolutions (
    id          uuid PRIMARY KEY DEFAULT uuid_v7(),
    project_id  uuid NOT NULL REFERENCES projects,
    merge_id    uuid NOT NULL REFERENCES branch_merges,
    path_key    text COLLATE "C" NOT NULL,
    path        depot_path NOT NULL,
    resolution  conflict_resolution NOT NULL,
    sha256      sha256,
    reason      text NOT NULL,
    resolved_by uuid NOT NULL REFERENCES users,
    resolved_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX merge_resolutions_path ON merge_resolutions (merge_id, path_key, id);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON merge_resolutions
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
ALTER TABLE merge_resolutions ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY members_read ON merge_resolutions FOR SELECT USING (project_id = ANY ((SELECT my_projects())::uuid[]));
CREATE POLICY readable_path ON merge_resolutions AS RESTRICTIVE FOR SELECT
    USING (project_id <> ALL ((SELECT restricted_projects())::uuid[]) OR my_path_access(project_id, path_key) >= 'read');
GRANT SELECT ON merge_resolutions TO depot_service;

-- Taken first by whatever changes a merge, so that no two of them wait for each other in a circle.
CREATE FUNCTION hold_merge(held uuid) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    SELECT FROM branch_merges WHERE id = held AND project_id = ANY (writable_projects('contributor')) FOR UPDATE
$$;

-- Each choice is kept, whoever writes it, and of a finished merge none is made. Once all are made, the result has to be
-- staged anew: the merge's first job does that.
CREATE FUNCTION settle_conflicts() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    IF EXISTS (SELECT FROM chosen JOIN branch_merges m ON m.id = chosen.merge_id
               WHERE m.status IN ('merged', 'cancelled')) THEN
        RAISE EXCEPTION 'the merge is finished' USING ERRCODE = 'restrict_violation';
    END IF;
    INSERT INTO merge_resolutions (project_id, merge_id, path_key, path, resolution, sha256, reason, resolved_by)
        SELECT project_id, merge_id, path_key, path, resolution, resolved_sha256, reason, resolved_by
        FROM chosen WHERE resolution IS NOT NULL ORDER BY path_key;
    PERFORM FROM branch_merges WHERE id IN (SELECT merge_id FROM chosen) FOR UPDATE;
    UPDATE branch_merges m SET status = 'pending'
        WHERE m.id IN (SELECT merge_id FROM chosen) AND m.status = 'conflicted'
          AND NOT EXISTS (SELECT FROM merge_conflicts c WHERE c.merge_id = m.id AND c.resolution IS NULL);
    UPDATE merge_jobs j SET status = 'queued', attempt = 0, available_at = now(), finished_at = NULL
        FROM branch_merges m WHERE m.id = j.merge_id AND m.status = 'pending' AND j.job_type = 'auto_integrate'
          AND m.id IN (SELECT merge_id FROM chosen) AND j.status IN ('staged', 'completed');
    RETURN NULL;
END $$;
CREATE TRIGGER settle_conflicts AFTER UPDATE ON merge_conflicts REFERENCING NEW TABLE AS chosen
    FOR EACH STATEMENT EXECUTE FUNCTION settle_conflicts();

-- Jobs ---------------------------------------------------------------------------------------------------------------

ALTER TABLE merge_jobs
    ADD COLUMN executor     text NOT NULL DEFAULT '',
    ADD COLUMN available_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN error        text NOT NULL DEFAULT '',
    ADD COLUMN finished_at  timestamptz,
    ADD CHECK ((status = 'running') = (leased_until IS NOT NULL)),
    ADD CHECK (NOT submit_gate_passed OR status = 'completed');
-- One of each type: asked for again, a failed one begins anew.
CREATE UNIQUE INDEX merge_jobs_of_merge ON merge_jobs (merge_id, job_type);
DROP INDEX merge_jobs_merge;
GRANT UPDATE (executor, available_at, error, finished_at) ON merge_jobs TO depot_service;

-- The lease's number only grows: whoever held the job before is told apart from whoever holds it now.
CREATE FUNCTION fence_merge_job() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public AS $$
BEGIN
    IF NEW.fencing_number < OLD.fencing_number THEN
        RAISE EXCEPTION 'a fencing number never falls' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER fence_merge_job BEFORE UPDATE ON merge_jobs FOR EACH ROW EXECUTE FUNCTION fence_merge_job();

REVOKE EXECUTE ON FUNCTION branch_touched(uuid, bigint, uuid, bigint), submit_merge_by_gate(), drop_staged(), settle_conflicts(),
    fence_merge_job(), hold_merge(uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION branch_touched(uuid, bigint, uuid, bigint), submit_merge_by_gate(), drop_staged(), settle_conflicts(),
    fence_merge_job(), hold_merge(uuid) TO depot_service;
