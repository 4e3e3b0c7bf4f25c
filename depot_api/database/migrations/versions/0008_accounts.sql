-- Users by admins, API tokens, archives, storage quotas and snapshots.

-- Users --------------------------------------------------------------------------------------------------------------

-- Whoever signed in has no token scope; a token acts for an admin only when its own scope says so.
CREATE FUNCTION acts_as_admin() RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    SELECT app_user_is_admin() AND coalesce(current_setting('app.token_scope', true), '') IN ('', 'admin')
$$;

-- Holds whoever writes. The advisory lock makes two admins who demote each other take turns: the second is refused.
CREATE FUNCTION guard_studio_role() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    IF NEW.studio_role > OLD.studio_role AND OLD.id = app_user_id() THEN
        RAISE EXCEPTION 'nobody raises their own role' USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF OLD.studio_role = 'admin' AND OLD.is_active AND NOT (NEW.studio_role = 'admin' AND NEW.is_active) THEN
        PERFORM pg_advisory_xact_lock(hashtext('the last active admin'));
        IF NOT EXISTS (SELECT FROM users WHERE studio_role = 'admin' AND is_active AND id <> OLD.id) THEN
            RAISE EXCEPTION 'user % is the last active admin', OLD.id USING ERRCODE = 'restrict_violation';
        END IF;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER guard_studio_role BEFORE UPDATE OF studio_role, is_active ON users
    FOR EACH ROW EXECUTE FUNCTION guard_studio_role();

CREATE FUNCTION create_user(name text, shown_as text, hash text, role studio_role) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE created uuid;
BEGIN
    IF NOT acts_as_admin() THEN
        RAISE EXCEPTION 'only admins create users' USING ERRCODE = 'insufficient_privilege';
    END IF;
    INSERT INTO users (username, display_name, password_hash, studio_role) VALUES (name, shown_as, hash, role)
        RETURNING id INTO created;
    RETURN created;
END $$;

-- NULL leaves as it is. False when there is no such user.
CREATE FUNCTION update_user(target uuid, shown_as text, role studio_role, active boolean) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    IF NOT acts_as_admin() THEN
        RAISE EXCEPTION 'only admins change users' USING ERRCODE = 'insufficient_privilege';
    END IF;
    UPDATE users SET display_name = coalesce(shown_as, display_name), studio_role = coalesce(role, studio_role),
        is_active = coalesce(active, is_active) WHERE id = target;
    RETURN FOUND;
END $$;

-- One's own, or anybody's for an admin. False when there is no such user.
CREATE FUNCTION set_password_hash(target uuid, hash text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    IF target IS DISTINCT FROM app_user_id() AND NOT acts_as_admin() THEN
        RAISE EXCEPTION 'only admins reset passwords' USING ERRCODE = 'insufficient_privilege';
    END IF;
    UPDATE users SET password_hash = hash WHERE id = target;
    RETURN FOUND;
END $$;

-- Nobody hands out, changes or takes away a role above their own. A project's first member has nobody above.
CREATE FUNCTION guard_member_role() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE
    member project_members := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
    mine project_role := (SELECT role FROM project_members
                          WHERE project_id = member.project_id AND user_id = app_user_id());
BEGIN
    IF NOT app_user_is_admin()
       AND (TG_OP <> 'DELETE' AND NEW.role > mine OR TG_OP <> 'INSERT' AND OLD.role > mine) THEN
        RAISE EXCEPTION 'the role is above one''s own' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN member;
END $$;
CREATE TRIGGER guard_member_role BEFORE INSERT OR UPDATE OF role OR DELETE ON project_members
    FOR EACH ROW EXECUTE FUNCTION guard_member_role();

-- API tokens ---------------------------------------------------------------------------------------------------------

-- A token hands out what it has, and an admin's token anything; so does whoever signed in with a password.
CREATE POLICY within_own_scope ON api_tokens AS RESTRICTIVE FOR INSERT WITH CHECK (
    CASE coalesce(current_setting('app.token_scope', true), '')
        WHEN '' THEN true
        WHEN 'admin' THEN true
        WHEN 'write' THEN scope::text IN ('read', 'write')
        ELSE scope::text = current_setting('app.token_scope', true)
    END);
CREATE POLICY admins_read ON api_tokens FOR SELECT USING ((SELECT acts_as_admin()));
CREATE POLICY admins_revoke ON api_tokens FOR UPDATE USING ((SELECT acts_as_admin()));
CREATE POLICY revoked_for_good ON api_tokens AS RESTRICTIVE FOR UPDATE
    USING (revoked_at IS NULL) WITH CHECK (revoked_at IS NOT NULL);
CREATE INDEX api_tokens_of_user ON api_tokens (user_id, id);
DROP INDEX api_tokens_user;

-- Archives -----------------------------------------------------------------------------------------------------------

-- What a project held when it was archived.
CREATE TABLE project_archives (
    id          uuid PRIMARY KEY DEFAULT uuid_v7(),
    project_id  uuid NOT NULL REFERENCES projects,
    archived_by uuid NOT NULL REFERENCES users,
    archived_at timestamptz NOT NULL DEFAULT now(),
    reason      text NOT NULL CHECK (length(reason) BETWEEN 1 AND 10000),
    assets      bigint NOT NULL,
    versions    bigint NOT NULL,
    branches    bigint NOT NULL,
    changelists bigint NOT NULL,
    objects     bigint NOT NULL,
    used_bytes  bigint NOT NULL
);
CREATE INDEX project_archives_project ON project_archives (project_id, id);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON project_archives
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
ALTER TABLE project_archives ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY members_read ON project_archives FOR SELECT USING (project_id = ANY ((SELECT my_projects())::uuid[]));
GRANT SELECT ON project_archives TO depot_service;

-- Into and out of the archive lead the two functions below only.
DROP POLICY managers_update ON projects;
CREATE POLICY managers_update ON projects FOR UPDATE
    USING (id = ANY ((SELECT writable_projects('manager'))::uuid[]))
    WITH CHECK (id = ANY ((SELECT writable_projects('manager'))::uuid[]) AND status <> 'archived');

-- FOR UPDATE waits for every transaction that has written to the project: each holds its row by a foreign key. Those
-- that come later find the project archived at their next statement, and are undone. So the summary is exact.
CREATE FUNCTION archive_project(project uuid, why text) RETURNS SETOF project_archives
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    PERFORM FROM projects WHERE id = project AND id = ANY (my_projects('manager')) FOR UPDATE;
    IF project <> ALL (writable_projects('manager')) THEN
        RAISE EXCEPTION 'only a manager archives, and only once' USING ERRCODE = 'insufficient_privilege';
    END IF;
    PERFORM recount_project_usage(project);
    RETURN QUERY INSERT INTO project_archives
            (project_id, archived_by, reason, assets, versions, branches, changelists, objects, used_bytes)
        SELECT project, app_user_id(), why,
            (SELECT count(*) FROM assets a WHERE a.project_id = project),
            (SELECT count(*) FROM asset_versions v WHERE v.project_id = project),
            (SELECT count(*) FROM branches b WHERE b.project_id = project),
            (SELECT count(*) FROM changelists c WHERE c.project_id = project AND c.status = 'submitted'),
            u.objects, u.used_bytes
        FROM project_usage u WHERE u.project_id = project
        RETURNING *;
    UPDATE projects SET status = 'archived' WHERE id = project;
END $$;

-- False when it is not archived.
CREATE FUNCTION unarchive_project(project uuid) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    IF project <> ALL (my_projects('manager')) THEN
        RAISE EXCEPTION 'only a manager un-archives' USING ERRCODE = 'insufficient_privilege';
    END IF;
    UPDATE projects SET status = 'active' WHERE id = project AND status = 'archived';
    RETURN FOUND;
END $$;

-- Storage ------------------------------------------------------------------------------------------------------------
-- A project is charged once for each content that it refers to or has received, with the size before compression. What
-- is charged is counted (project_usage) and, since that count, noted as it comes (usage_changes): uploads append, and
-- never wait for each other's count.

CREATE TABLE project_usage (
    project_id uuid PRIMARY KEY REFERENCES projects,
    used_bytes bigint NOT NULL DEFAULT 0,
    objects    bigint NOT NULL DEFAULT 0
);
CREATE TABLE usage_changes (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project_id uuid NOT NULL REFERENCES projects,
    used_bytes bigint NOT NULL,
    objects    bigint NOT NULL
);
CREATE INDEX usage_changes_project ON usage_changes (project_id);

-- Room kept for an upload that is under way.
CREATE TABLE upload_reservations (
    id         uuid PRIMARY KEY DEFAULT uuid_v7(),
    project_id uuid NOT NULL REFERENCES projects,
    user_id    uuid NOT NULL REFERENCES users,
    size_bytes bigint NOT NULL CHECK (size_bytes >= 0),
    expires_at timestamptz NOT NULL
);
CREATE INDEX upload_reservations_project ON upload_reservations (project_id);

-- Use over time: the last count of each day.
CREATE TABLE storage_snapshots (
    project_id  uuid NOT NULL REFERENCES projects,
    day         date NOT NULL,
    taken_at    timestamptz NOT NULL DEFAULT now(),
    used_bytes  bigint NOT NULL,
    objects     bigint NOT NULL,
    quota_bytes bigint,
    PRIMARY KEY (project_id, day)
);

DO $$
DECLARE counted text;
BEGIN
    FOREACH counted IN ARRAY ARRAY['project_usage', 'usage_changes', 'upload_reservations', 'storage_snapshots'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', counted);
        EXECUTE format('CREATE POLICY members_read ON %I FOR SELECT
            USING (project_id = ANY ((SELECT my_projects())::uuid[]))', counted);
        EXECUTE format('GRANT SELECT ON %I TO depot_service', counted);
    END LOOP;
END $$;

CREATE FUNCTION open_project_usage() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    INSERT INTO project_usage (project_id) VALUES (NEW.id);
    RETURN NULL;
END $$;
CREATE TRIGGER open_project_usage AFTER INSERT ON projects FOR EACH ROW EXECUTE FUNCTION open_project_usage();

-- Counts from nothing; also after a rebuild or an obliteration. One snapshot sees contents and changes alike, so what
-- commits meanwhile is neither lost nor counted twice.
CREATE FUNCTION recount_project_usage(project uuid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    PERFORM FROM project_usage WHERE project_id = project FOR UPDATE;
    WITH folded AS (DELETE FROM usage_changes WHERE project_id = project),
    charged AS (SELECT sha256 FROM project_blobs WHERE project_id = project
                UNION SELECT sha256 FROM upload_receipts WHERE project_id = project),
    counted AS (SELECT coalesce(sum(b.size_bytes), 0) AS used_bytes, count(*) AS objects
                FROM charged JOIN blobs b USING (sha256))
    UPDATE project_usage u SET used_bytes = counted.used_bytes, objects = counted.objects
    FROM counted WHERE u.project_id = project;
END $$;
INSERT INTO project_usage (project_id) SELECT id FROM projects;
SELECT recount_project_usage(id) FROM projects;

-- NULL when the asker may be told that the project has `content`: it is charged already, and sending it again costs
-- nothing. Raises DQ001 when it would not fit. Racing uploads take turns at the project's row; whoever comes second sees the
-- first's reservation. Uploads that end meanwhile change reservation and use in one commit, seen by one statement.
CREATE FUNCTION reserve_upload(project uuid, wanted_bytes numeric, content bytea DEFAULT NULL) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE
    seen record;
    reservation uuid;
BEGIN
    PERFORM FROM projects WHERE id = project FOR KEY SHARE; -- as record_blobs does
    IF project <> ALL (writable_projects('contributor')) THEN
        RAISE EXCEPTION 'not a contributor' USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF EXISTS (SELECT FROM project_blobs WHERE project_id = project AND sha256 = content) OR EXISTS (
            SELECT FROM upload_receipts
            WHERE project_id = project AND user_id = app_user_id() AND sha256 = content) THEN
        RETURN NULL;
    END IF;
    PERFORM FROM project_usage WHERE project_id = project FOR UPDATE;
    DELETE FROM upload_reservations WHERE project_id = project AND expires_at <= now();
    WITH folded AS (DELETE FROM usage_changes WHERE project_id = project RETURNING used_bytes, objects)
    UPDATE project_usage u SET used_bytes = u.used_bytes + f.used_bytes, objects = u.objects + f.objects
    FROM (SELECT sum(used_bytes) AS used_bytes, sum(objects) AS objects FROM folded) f
    WHERE u.project_id = project AND f.objects IS NOT NULL;
    SELECT p.quota_bytes,
        u.used_bytes + (SELECT coalesce(sum(c.used_bytes), 0) FROM usage_changes c WHERE c.project_id = project)
            AS used_bytes,
        (SELECT coalesce(sum(r.size_bytes), 0) FROM upload_reservations r WHERE r.project_id = project)
            AS reserved_bytes
        INTO seen FROM projects p JOIN project_usage u ON u.project_id = p.id WHERE p.id = project;
    IF seen.used_bytes + seen.reserved_bytes + wanted_bytes > seen.quota_bytes THEN
        RAISE EXCEPTION 'the quota has no room' USING ERRCODE = 'DQ001', DETAIL = to_json(seen)::text;
    END IF;
    -- An hour and 10 s for each MB: an upload that is slower than 100 kB/s can lose its place.
    INSERT INTO upload_reservations (project_id, user_id, size_bytes, expires_at) VALUES (project, app_user_id(),
        wanted_bytes, now() + interval '1 hour' + least(wanted_bytes, 1e13) / 1e6 * interval '10 seconds')
        RETURNING id INTO reservation;
    RETURN reservation;
END $$;

-- False when it has expired: its room may have been given to others.
CREATE FUNCTION release_upload(reservation uuid) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE held_until timestamptz;
BEGIN
    DELETE FROM upload_reservations WHERE id = reservation AND user_id = app_user_id()
        RETURNING expires_at INTO held_until;
    RETURN coalesce(held_until > now(), false);
END $$;

-- As before, and charges the project for what is new to it.
CREATE OR REPLACE FUNCTION record_blobs(project uuid, hashes bytea[], sizes bigint[], stored bigint[], crcs bigint[])
RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE was_removed boolean;
BEGIN
    -- The lock that the foreign keys would take, taken first: who archives meanwhile is waited for, and then seen.
    PERFORM FROM projects WHERE id = project FOR KEY SHARE;
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
    -- The blobs' rows are locked now, so nobody else can be charging the project for the same content. OFFSET 0 keeps
    -- these lookups, one for each hash, from becoming a join that reads all that the project has.
    INSERT INTO usage_changes (project_id, used_bytes, objects)
        SELECT project, sum(size_bytes), count(*)
        FROM (SELECT DISTINCT ON (1) * FROM unnest(hashes, sizes) AS sent (sha256, size_bytes) ORDER BY 1) sent
        WHERE NOT EXISTS (
            SELECT FROM upload_receipts r WHERE r.sha256 = sent.sha256 AND r.project_id = project OFFSET 0)
          AND NOT EXISTS (
            SELECT FROM project_blobs p WHERE p.sha256 = sent.sha256 AND p.project_id = project OFFSET 0)
        HAVING count(*) > 0;
    INSERT INTO upload_receipts (project_id, user_id, sha256)
        SELECT DISTINCT project, app_user_id(), h FROM unnest(hashes) h ORDER BY 3
        ON CONFLICT (project_id, user_id, sha256) DO UPDATE SET received_at = now();
    RETURN was_removed;
END $$;
-- Whether anybody sent this content to the project: one lookup.
CREATE INDEX upload_receipts_content ON upload_receipts (sha256, project_id);
DROP INDEX upload_receipts_sha256;

-- One for each day, the last wins.
CREATE FUNCTION take_storage_snapshot(project uuid) RETURNS SETOF storage_snapshots
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    PERFORM FROM projects WHERE id = project FOR KEY SHARE; -- as record_blobs does
    IF project <> ALL (writable_projects('manager')) THEN
        RAISE EXCEPTION 'only a manager takes snapshots' USING ERRCODE = 'insufficient_privilege';
    END IF;
    PERFORM recount_project_usage(project);
    RETURN QUERY INSERT INTO storage_snapshots AS s (project_id, day, used_bytes, objects, quota_bytes)
        SELECT p.id, (now() AT TIME ZONE 'UTC')::date, u.used_bytes, u.objects, p.quota_bytes
        FROM projects p JOIN project_usage u ON u.project_id = p.id WHERE p.id = project
        ON CONFLICT (project_id, day) DO UPDATE SET taken_at = excluded.taken_at, used_bytes = excluded.used_bytes,
            objects = excluded.objects, quota_bytes = excluded.quota_bytes
        RETURNING s.*;
END $$;

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC;
GRANT EXECUTE ON FUNCTION acts_as_admin(), create_user(text, text, text, studio_role),
    update_user(uuid, text, studio_role, boolean), set_password_hash(uuid, text), archive_project(uuid, text),
    unarchive_project(uuid), reserve_upload(uuid, numeric, bytea), release_upload(uuid), take_storage_snapshot(uuid)
    TO depot_service;
