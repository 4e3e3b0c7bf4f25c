-- Collection: content that nothing refers to is marked, and after a time of grace its bytes may go. A mark says since
-- when at least nothing has referred to it: a backup from before that moment may still need the content. It goes as soon
-- as anything refers to the content again, so that the next mark starts from anew.

-- Which server's log this is, and which branch of it: another one after every recovery and promotion.
CREATE FUNCTION log_history() RETURNS text LANGUAGE sql VOLATILE SET search_path = pg_catalog AS $$
    SELECT system_identifier || '/' || left(pg_walfile_name(pg_current_wal_lsn()), 8) FROM pg_control_system()
$$;

CREATE TABLE blob_tombstones (
    sha256          sha256 PRIMARY KEY REFERENCES blobs,
    unreferenced_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- A catalogue that was recovered knows nothing of what referred to the content in backups from after that moment.
    history         text NOT NULL DEFAULT log_history(),
    -- From then on nobody can refer to the content without sending it again. Gone with the last copy's bytes.
    condemned_at    timestamptz
);
CREATE INDEX blob_tombstones_condemned ON blob_tombstones (sha256) WHERE condemned_at IS NOT NULL;
-- No policy and no grant: content without a reference is of no tenant. Only roles that bypass row-level security see it.
ALTER TABLE blob_tombstones ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

-- Who refers to some content, in any project: one lookup each.
CREATE INDEX asset_versions_content ON asset_versions (sha256, project_id);
DROP INDEX asset_versions_sha256;
CREATE INDEX changelists_unfinished ON changelists (id) WHERE status IN ('open', 'pending_review');

-- Of `hashes`, what nothing refers to: no version whose content is not obliterated, no shelf, no resolved conflict, no
-- unfinished changelist (a merge stages its result in one), and no upload since `uploads_since`. OFFSET 0 keeps each a
-- lookup, whatever the statistics say; unfinished changelists are read through, only when anything is left to ask for.
CREATE FUNCTION unreferenced_blobs(hashes bytea[], uploads_since timestamptz) RETURNS SETOF bytea
LANGUAGE sql STABLE SET search_path = pg_catalog, public AS $$
    WITH loose AS MATERIALIZED (
        SELECT h FROM unnest(hashes) h
        WHERE NOT EXISTS (SELECT FROM asset_versions v WHERE v.sha256 = h AND NOT EXISTS (
                  SELECT FROM obliterated_versions t JOIN obliterations o ON o.id = t.obliteration_id
                  WHERE t.asset_id = v.asset_id AND t.number = v.number AND o.status = 'completed') OFFSET 0)
          AND NOT EXISTS (SELECT FROM shelf_items s WHERE s.sha256 = h OFFSET 0)
          AND NOT EXISTS (SELECT FROM merge_conflicts c WHERE c.resolved_sha256 = h OFFSET 0)
          AND NOT EXISTS (SELECT FROM upload_receipts r WHERE r.sha256 = h AND r.received_at >= uploads_since OFFSET 0))
    SELECT h FROM loose
    WHERE NOT EXISTS (SELECT FROM changelists c JOIN changelist_items i ON i.changelist_id = c.id
                      WHERE c.status IN ('open', 'pending_review') AND i.sha256 = h)
$$;

-- The records of `hashes`, locked until the transaction ends. Whoever makes a reference holds the record by its foreign
-- key or by the upload: what is held is left for the next time, so that nobody waits for anybody in a circle.
CREATE FUNCTION hold_blobs(hashes bytea[]) RETURNS bytea[]
LANGUAGE sql VOLATILE SET search_path = pg_catalog, public AS $$
    SELECT coalesce(array_agg(held.sha256), '{}') FROM (
        SELECT sha256::bytea AS sha256 FROM blobs WHERE sha256 = ANY (hashes) AND removed_at IS NULL
        FOR UPDATE SKIP LOCKED) held
$$;

-- Marks what nothing refers to, and takes marks from what something refers to. Returns how many of `hashes` are new.
CREATE FUNCTION mark_unreferenced(hashes bytea[], uploads_since timestamptz) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, public AS $$
DECLARE
    held bytea[];
    marked bigint;
BEGIN
    held := hold_blobs(ARRAY(SELECT unreferenced_blobs(hashes, uploads_since)));
    -- Each statement sees what was committed before it began: this one, whatever was done before the lock.
    INSERT INTO blob_tombstones (sha256) SELECT unreferenced_blobs(held, uploads_since) ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS marked = ROW_COUNT;
    DELETE FROM blob_tombstones WHERE sha256 IN (
        SELECT sha256 FROM blob_tombstones WHERE condemned_at IS NULL AND sha256 = ANY (hashes)
            AND sha256 NOT IN (SELECT unreferenced_blobs(hashes, uploads_since)) FOR UPDATE SKIP LOCKED);
    RETURN marked;
END $$;

-- Of `hashes`, condemns what was marked before `unreferenced_before` and is still without a reference: it counts as
-- removed, so nothing can refer to it any more that does not bring the bytes along. Returns how much that is.
CREATE FUNCTION condemn_blobs(hashes bytea[], unreferenced_before timestamptz, uploads_since timestamptz) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, public AS $$
DECLARE
    held bytea[] := hold_blobs(hashes);
    gone bytea[];
BEGIN
    gone := ARRAY(
        SELECT u FROM unreferenced_blobs(held, uploads_since) u JOIN blob_tombstones t ON t.sha256 = u
        WHERE t.condemned_at IS NULL AND t.unreferenced_at < unreferenced_before);
    INSERT INTO usage_changes (project_id, used_bytes, objects)
        SELECT charged.project_id, -sum(b.size_bytes), -count(*)
        FROM (SELECT project_id, sha256 FROM project_blobs WHERE sha256 = ANY (gone)
              UNION SELECT project_id, sha256 FROM upload_receipts WHERE sha256 = ANY (gone)) charged
        JOIN blobs b USING (sha256) GROUP BY 1;
    DELETE FROM upload_receipts WHERE sha256 = ANY (gone);
    DELETE FROM project_blobs WHERE sha256 = ANY (gone);
    UPDATE blobs SET removed_at = now() WHERE sha256 = ANY (gone);
    UPDATE blob_tombstones SET condemned_at = now() WHERE sha256 = ANY (gone);
    RETURN cardinality(gone);
END $$;

-- The next condemned content that nobody has sent again. Its records stay locked until the transaction ends, which the
-- caller does when the bytes are gone: whoever sends it meanwhile waits, and then looks whether its bytes survived.
CREATE FUNCTION hold_condemned(after bytea, batch_rows integer) RETURNS SETOF bytea
LANGUAGE sql VOLATILE SET search_path = pg_catalog, public AS $$
    SELECT b.sha256::bytea FROM blob_tombstones t JOIN blobs b ON b.sha256 = t.sha256
    WHERE t.condemned_at IS NOT NULL AND t.sha256 > after AND b.removed_at IS NOT NULL
    ORDER BY t.sha256 LIMIT batch_rows FOR UPDATE OF b SKIP LOCKED
$$;

-- What is referred to is not marked any more; a reference that waited for content that was condemned meanwhile must not
-- land. The names of the triggers put them after the foreign key's own, which is what waits. In hash order, so that two
-- of them wait for each other instead of deadlocking.
CREATE FUNCTION refer_to(hashes bytea[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    IF EXISTS (SELECT FROM unnest(hashes) h JOIN blobs b ON b.sha256 = h WHERE b.removed_at IS NOT NULL) THEN
        RAISE EXCEPTION 'content has just been removed' USING ERRCODE = 'foreign_key_violation';
    END IF;
    DELETE FROM blob_tombstones WHERE sha256 IN (
        SELECT t.sha256 FROM unnest(hashes) h JOIN blob_tombstones t ON t.sha256 = h ORDER BY 1 FOR UPDATE OF t);
END $$;

CREATE FUNCTION refer_to_content() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    PERFORM refer_to(ARRAY(SELECT sha256::bytea FROM referred WHERE sha256 IS NOT NULL));
    RETURN NULL;
END $$;
CREATE TRIGGER zz_refer_to_content AFTER INSERT ON asset_versions REFERENCING NEW TABLE AS referred
    FOR EACH STATEMENT EXECUTE FUNCTION refer_to_content();
CREATE TRIGGER zz_refer_to_content AFTER INSERT ON shelf_items REFERENCING NEW TABLE AS referred
    FOR EACH STATEMENT EXECUTE FUNCTION refer_to_content();
-- Content that was sent again is as new, condemned or not: record_blobs has taken it back before this.
CREATE TRIGGER zz_refer_to_content_inserted AFTER INSERT ON upload_receipts REFERENCING NEW TABLE AS referred
    FOR EACH STATEMENT EXECUTE FUNCTION refer_to_content();
CREATE TRIGGER zz_refer_to_content_updated AFTER UPDATE ON upload_receipts REFERENCING NEW TABLE AS referred
    FOR EACH STATEMENT EXECUTE FUNCTION refer_to_content();

CREATE FUNCTION refer_to_resolved() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    PERFORM refer_to(ARRAY(SELECT resolved_sha256::bytea FROM referred WHERE resolved_sha256 IS NOT NULL));
    RETURN NULL;
END $$;
CREATE TRIGGER zz_refer_to_resolved_inserted AFTER INSERT ON merge_conflicts REFERENCING NEW TABLE AS referred
    FOR EACH STATEMENT EXECUTE FUNCTION refer_to_resolved();
CREATE TRIGGER zz_refer_to_resolved_updated AFTER UPDATE ON merge_conflicts REFERENCING NEW TABLE AS referred
    FOR EACH STATEMENT EXECUTE FUNCTION refer_to_resolved();

REVOKE EXECUTE ON FUNCTION log_history(), unreferenced_blobs(bytea[], timestamptz), hold_blobs(bytea[]),
    mark_unreferenced(bytea[], timestamptz), condemn_blobs(bytea[], timestamptz, timestamptz),
    hold_condemned(bytea, integer), refer_to(bytea[]), refer_to_content(), refer_to_resolved() FROM PUBLIC;
