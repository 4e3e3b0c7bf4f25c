-- Obliterating takes two transactions, as collection does: what is condemned cannot be taken back, whatever becomes of
-- the removal of its bytes.
ALTER TYPE obliteration_status ADD VALUE 'condemned' BEFORE 'completed';
ALTER TABLE obliterations DROP CONSTRAINT obliterations_check,
    ADD CHECK ((status IN ('completed', 'cancelled')) = (finished_at IS NOT NULL));

-- From now on the content counts as removed, as far as nobody refers to it, in any project: whoever wants to refer to it
-- has to send it. Done again before each try to remove the bytes.
CREATE FUNCTION condemn_obliteration(obliteration uuid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE hash bytea;
BEGIN
    PERFORM refuse_unless_admin();
    UPDATE obliterations SET status = 'condemned'
        WHERE id = obliteration AND status IN ('requested', 'condemned') AND due_at <= now();
    IF NOT FOUND THEN
        RAISE EXCEPTION 'obliteration % is finished or not due', obliteration USING ERRCODE = 'restrict_violation';
    END IF;
    FOR hash IN SELECT DISTINCT sha256 FROM obliterated_versions WHERE obliteration_id = obliteration ORDER BY 1 LOOP
        PERFORM FROM blobs WHERE sha256 = hash FOR UPDATE;
        CONTINUE WHEN EXISTS (SELECT FROM project_blobs WHERE sha256 = hash)
            OR EXISTS (SELECT FROM upload_receipts WHERE sha256 = hash)
            OR EXISTS (SELECT FROM shelf_items WHERE sha256 = hash);
        UPDATE blobs SET removed_at = now() WHERE sha256 = hash;
        INSERT INTO blob_tombstones (sha256, condemned_at) VALUES (hash, now())
            ON CONFLICT (sha256) DO UPDATE SET condemned_at = now(), history = excluded.history;
    END LOOP;
END $$;

-- The condemned content that nobody has sent again. Its records stay locked until the transaction ends, which the caller
-- does when the bytes are gone: whoever sends it meanwhile waits, and then looks whether its bytes survived.
DROP FUNCTION complete_obliteration(uuid);
CREATE FUNCTION complete_obliteration(obliteration uuid) RETURNS SETOF bytea
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE hash bytea;
BEGIN
    PERFORM refuse_unless_admin();
    UPDATE obliterations SET status = 'completed', finished_at = now() WHERE id = obliteration AND status = 'condemned';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'obliteration % is finished', obliteration USING ERRCODE = 'restrict_violation';
    END IF;
    FOR hash IN
        SELECT b.sha256 FROM blobs b JOIN blob_tombstones t ON t.sha256 = b.sha256
        WHERE b.sha256 IN (SELECT sha256 FROM obliterated_versions WHERE obliteration_id = obliteration)
          AND b.removed_at IS NOT NULL AND t.condemned_at IS NOT NULL ORDER BY 1 FOR UPDATE OF b
    LOOP
        DELETE FROM blob_tombstones WHERE sha256 = hash;
        RETURN NEXT hash;
    END LOOP;
END $$;

REVOKE EXECUTE ON FUNCTION condemn_obliteration(uuid), complete_obliteration(uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION condemn_obliteration(uuid), complete_obliteration(uuid) TO depot_service;
