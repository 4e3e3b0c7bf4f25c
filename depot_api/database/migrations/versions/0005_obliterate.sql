-- Obliterate: content of chosen versions goes, their history stays. In two phases: at first nobody can read it any more,
-- which can be taken back; after a time of grace the bytes are removed, which cannot.

CREATE TYPE obliteration_status AS ENUM ('requested', 'completed', 'cancelled');

CREATE TABLE obliterations (
    id           uuid PRIMARY KEY DEFAULT uuid_v7(),
    project_id   uuid NOT NULL REFERENCES projects,
    reason       text NOT NULL CHECK (length(reason) BETWEEN 1 AND 10000),
    status       obliteration_status NOT NULL DEFAULT 'requested',
    requested_by uuid NOT NULL REFERENCES users,
    requested_at timestamptz NOT NULL DEFAULT now(),
    due_at       timestamptz NOT NULL,
    finished_at  timestamptz,
    CHECK ((status = 'requested') = (finished_at IS NULL))
);
CREATE INDEX obliterations_project ON obliterations (project_id, id);
CREATE TRIGGER audit AFTER INSERT OR UPDATE ON obliterations FOR EACH ROW EXECUTE FUNCTION audit();

-- The tombstones: what answers 410. Those of a cancelled obliteration are gone.
CREATE TABLE obliterated_versions (
    project_id      uuid NOT NULL REFERENCES projects,
    obliteration_id uuid NOT NULL REFERENCES obliterations,
    asset_id        uuid NOT NULL,
    number          integer NOT NULL,
    sha256          sha256 NOT NULL,
    PRIMARY KEY (asset_id, number),
    FOREIGN KEY (asset_id, number) REFERENCES asset_versions
);
CREATE INDEX obliterated_versions_obliteration ON obliterated_versions (obliteration_id);
CREATE INDEX obliterated_versions_sha256 ON obliterated_versions (project_id, sha256);

DO $$
DECLARE tenant text;
BEGIN
    FOREACH tenant IN ARRAY ARRAY['obliterations', 'obliterated_versions'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', tenant);
        EXECUTE format('CREATE POLICY members_read ON %I FOR SELECT
            USING (project_id = ANY ((SELECT my_projects())::uuid[]))', tenant);
        EXECUTE format('GRANT SELECT ON %I TO depot_service', tenant);
    END LOOP;
END $$;

-- Set when the bytes are gone; whoever sends the content again sets it back.
ALTER TABLE blobs ADD COLUMN removed_at timestamptz;

CREATE FUNCTION refuse_unless_admin() RETURNS void
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    IF NOT acts_as_admin() THEN
        RAISE EXCEPTION 'only a studio admin obliterates' USING ERRCODE = 'insufficient_privilege';
    END IF;
END $$;

-- Content that nothing in the project refers to any more, but for what is obliterated.
CREATE FUNCTION unreferenced_content(project uuid, obliteration uuid) RETURNS SETOF bytea
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    SELECT DISTINCT o.sha256::bytea FROM obliterated_versions o
    WHERE o.obliteration_id = obliteration
      AND NOT EXISTS (SELECT FROM asset_versions v WHERE v.project_id = project AND v.sha256 = o.sha256
                      AND NOT EXISTS (SELECT FROM obliterated_versions t
                                      WHERE t.asset_id = v.asset_id AND t.number = v.number))
      AND NOT EXISTS (SELECT FROM shelf_items s WHERE s.project_id = project AND s.sha256 = o.sha256)
$$;

CREATE FUNCTION obliterate(project uuid, why text, grace interval, asset_ids uuid[], numbers integer[]) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE made uuid;
BEGIN
    PERFORM refuse_unless_admin();
    INSERT INTO obliterations (project_id, reason, requested_by, due_at)
        VALUES (project, why, app_user_id(), now() + grace) RETURNING id INTO made;
    INSERT INTO obliterated_versions (project_id, obliteration_id, asset_id, number, sha256)
        SELECT v.project_id, made, v.asset_id, v.number, v.sha256
        FROM unnest(asset_ids, numbers) AS chosen (asset_id, number) JOIN asset_versions v USING (asset_id, number)
        WHERE v.project_id = project;
    DELETE FROM upload_receipts WHERE project_id = project AND sha256 IN (SELECT unreferenced_content(project, made));
    DELETE FROM project_blobs WHERE project_id = project AND sha256 IN (SELECT unreferenced_content(project, made));
    PERFORM recount_project_usage(project);
    RETURN made;
END $$;

CREATE FUNCTION cancel_obliteration(obliteration uuid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    PERFORM refuse_unless_admin();
    UPDATE obliterations SET status = 'cancelled', finished_at = now() WHERE id = obliteration AND status = 'requested';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'obliteration % is finished', obliteration USING ERRCODE = 'restrict_violation';
    END IF;
    -- What may be referred to is what was sent (invariant 3): here it is the admin who vouches for it.
    INSERT INTO upload_receipts (project_id, user_id, sha256)
        SELECT DISTINCT project_id, app_user_id(), sha256 FROM obliterated_versions WHERE obliteration_id = obliteration
        ON CONFLICT DO NOTHING;
    INSERT INTO project_blobs (project_id, sha256)
        SELECT DISTINCT project_id, sha256 FROM obliterated_versions WHERE obliteration_id = obliteration
        ON CONFLICT DO NOTHING;
    DELETE FROM obliterated_versions WHERE obliteration_id = obliteration;
    PERFORM recount_project_usage(project_id) FROM obliterations WHERE id = obliteration;
END $$;

-- The content whose bytes may go: nobody refers to it, in any project. Their records stay locked until the transaction
-- ends, which the caller does when the bytes are gone.
CREATE FUNCTION complete_obliteration(obliteration uuid) RETURNS SETOF bytea
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE hash bytea;
BEGIN
    PERFORM refuse_unless_admin();
    UPDATE obliterations SET status = 'completed', finished_at = now()
        WHERE id = obliteration AND status = 'requested' AND due_at <= now();
    IF NOT FOUND THEN
        RAISE EXCEPTION 'obliteration % is finished or not due', obliteration USING ERRCODE = 'restrict_violation';
    END IF;
    FOR hash IN SELECT DISTINCT sha256 FROM obliterated_versions WHERE obliteration_id = obliteration ORDER BY 1 LOOP
        PERFORM FROM blobs WHERE sha256 = hash FOR UPDATE;
        CONTINUE WHEN EXISTS (SELECT FROM project_blobs WHERE sha256 = hash)
            OR EXISTS (SELECT FROM upload_receipts WHERE sha256 = hash)
            OR EXISTS (SELECT FROM shelf_items WHERE sha256 = hash);
        UPDATE blobs SET removed_at = now() WHERE sha256 = hash;
        RETURN NEXT hash;
    END LOOP;
END $$;

-- A submit that waited for the record of content whose bytes have just been removed must not land. Its name puts it
-- after the foreign key's own trigger, which is what waits.
CREATE FUNCTION refuse_removed_content() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    IF EXISTS (SELECT FROM referred r JOIN blobs b ON b.sha256 = r.sha256 WHERE b.removed_at IS NOT NULL) THEN
        RAISE EXCEPTION 'content has just been removed' USING ERRCODE = 'foreign_key_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER zz_refuse_removed_content AFTER INSERT ON project_blobs REFERENCING NEW TABLE AS referred
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_removed_content();

-- Returns whether some of the content had been removed: the caller then looks whether its bytes survived.
DROP FUNCTION record_blobs(uuid, bytea[], bigint[], bigint[], bigint[]);
CREATE FUNCTION record_blobs(project uuid, hashes bytea[], sizes bigint[], stored bigint[], crcs bigint[]) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE was_removed boolean;
BEGIN
    IF project <> ALL (writable_projects('contributor')) THEN
        RAISE EXCEPTION 'not a contributor' USING ERRCODE = 'insufficient_privilege';
    END IF;
    -- In hash order, so that two uploads of the same content wait for each other instead of deadlocking.
    INSERT INTO blobs (sha256, size_bytes, stored_bytes, stored_crc32)
        SELECT DISTINCT ON (1) * FROM unnest(hashes, sizes, stored, crcs) ORDER BY 1
        ON CONFLICT (sha256) DO UPDATE SET stored_bytes = excluded.stored_bytes,
            stored_crc32 = excluded.stored_crc32, verified_at = now();
    UPDATE blobs SET removed_at = NULL WHERE sha256 = ANY (hashes) AND removed_at IS NOT NULL;
    was_removed := FOUND;
    INSERT INTO upload_receipts (project_id, user_id, sha256)
        SELECT DISTINCT project, app_user_id(), h FROM unnest(hashes) h ORDER BY 3
        ON CONFLICT (project_id, user_id, sha256) DO UPDATE SET received_at = now();
    RETURN was_removed;
END $$;

REVOKE EXECUTE ON FUNCTION refuse_unless_admin(), unreferenced_content(uuid, uuid),
    obliterate(uuid, text, interval, uuid[], integer[]), cancel_obliteration(uuid), complete_obliteration(uuid),
    refuse_removed_content(), record_blobs(uuid, bytea[], bigint[], bigint[], bigint[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION obliterate(uuid, text, interval, uuid[], integer[]), cancel_obliteration(uuid),
    complete_obliteration(uuid), refuse_removed_content(),
    record_blobs(uuid, bytea[], bigint[], bigint[], bigint[]) TO depot_service;
