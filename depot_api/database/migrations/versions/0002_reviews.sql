-- Changelists in full: validations by pipelines, reviews that the branch asks for, comments, integrations.

-- Who asks, and with what: a pipeline's token may write validations and nothing else, and nobody else may.
ALTER TYPE token_scope ADD VALUE 'pipeline';

DROP FUNCTION set_app_user(uuid, text);
-- Begins every transaction of the service. Checked against users each time: a deactivated account is out at once.
CREATE FUNCTION set_app_user(user_id uuid, request_id text DEFAULT '', scope text DEFAULT '') RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM users u WHERE u.id = user_id AND u.is_active) THEN
        RAISE EXCEPTION 'no active user %', user_id USING ERRCODE = 'invalid_authorization_specification';
    END IF;
    PERFORM set_config('app.current_user_id', user_id::text, true), set_config('app.request_id', request_id, true),
            set_config('app.token_scope', scope, true);
END $$;

CREATE FUNCTION is_pipeline() RETURNS boolean LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    SELECT coalesce(current_setting('app.token_scope', true), '') = 'pipeline'
$$;

CREATE FUNCTION keep_validation_to_pipelines() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public AS $$
BEGIN
    IF app_user_id() IS NOT NULL AND NOT is_pipeline() THEN
        RAISE EXCEPTION 'only a pipeline validates' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keep_validation_to_pipelines BEFORE UPDATE OF validation ON changelist_items FOR EACH ROW
    WHEN (NEW.validation <> 'pending' AND OLD.validation IS DISTINCT FROM NEW.validation)
    EXECUTE FUNCTION keep_validation_to_pipelines();

-- Items belong to an unfinished changelist, and are its author's to change; a pipeline only validates them. The lock
-- makes a validation wait for a submit that is under way, and then be refused.
CREATE OR REPLACE FUNCTION keep_submitted_items() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE changelist changelists;
BEGIN
    FOR changelist IN SELECT * FROM changelists WHERE id IN (SELECT DISTINCT changelist_id FROM changed) FOR SHARE LOOP
        IF changelist.status NOT IN ('open', 'pending_review') THEN
            RAISE EXCEPTION 'items of a finished changelist never change' USING ERRCODE = 'restrict_violation';
        END IF;
        IF changelist.author_id <> app_user_id() AND NOT app_user_is_admin()
           AND NOT (is_pipeline() AND TG_OP = 'UPDATE') THEN
            RAISE EXCEPTION 'items are their author''s to change' USING ERRCODE = 'insufficient_privilege';
        END IF;
    END LOOP;
    RETURN NULL;
END $$;

-- Reviews ------------------------------------------------------------------------------------------------------------

ALTER TABLE branches
    ADD COLUMN approve_role project_role NOT NULL DEFAULT 'reviewer' CHECK (approve_role >= 'reviewer'),
    ADD COLUMN required_approvals integer NOT NULL DEFAULT 1 CHECK (required_approvals BETWEEN 1 AND 10);
GRANT UPDATE (approve_role, required_approvals) ON branches TO depot_service;

ALTER TABLE reviews ADD COLUMN decided_at timestamptz;
GRANT UPDATE (decided_at) ON reviews TO depot_service;
CREATE INDEX reviews_pending ON reviews (reviewer_id, id) WHERE verdict = 'pending';

-- A verdict is given by its reviewer and never on one's own work; anybody who reviews may be asked by the author.
CREATE POLICY own_verdict_insert ON reviews AS RESTRICTIVE FOR INSERT
    WITH CHECK (verdict = 'pending' OR reviewer_id = app_user_id());
CREATE POLICY own_verdict_update ON reviews AS RESTRICTIVE FOR UPDATE USING (reviewer_id = app_user_id());

CREATE FUNCTION refuse_own_approval() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    IF EXISTS (SELECT FROM changelists WHERE id = NEW.changelist_id AND author_id = NEW.reviewer_id) THEN
        RAISE EXCEPTION 'nobody reviews their own changelist' USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF NOT EXISTS (SELECT FROM changelists
                   WHERE id = NEW.changelist_id AND status = 'pending_review' AND project_id = NEW.project_id) THEN
        RAISE EXCEPTION 'the changelist is not under review' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER refuse_own_approval BEFORE INSERT OR UPDATE ON reviews
    FOR EACH ROW WHEN (NEW.verdict <> 'pending') EXECUTE FUNCTION refuse_own_approval();

-- A verdict is on what was seen: when the content changes, it has to be given again.
CREATE FUNCTION forget_verdicts() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    UPDATE reviews SET verdict = 'pending', decided_at = NULL
    WHERE verdict <> 'pending' AND changelist_id IN (SELECT DISTINCT changelist_id FROM changed);
    RETURN NULL;
END $$;
CREATE FUNCTION forget_verdicts_on_update() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    UPDATE reviews SET verdict = 'pending', decided_at = NULL
    WHERE verdict <> 'pending' AND changelist_id IN (
        SELECT a.changelist_id FROM changed a JOIN before b USING (changelist_id, path_key)
        WHERE (a.path, a.action, a.base_version, a.sha256, a.moved_from)
              IS DISTINCT FROM (b.path, b.action, b.base_version, b.sha256, b.moved_from));
    RETURN NULL;
END $$;
CREATE TRIGGER forget_verdicts_insert AFTER INSERT ON changelist_items REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION forget_verdicts();
CREATE TRIGGER forget_verdicts_delete AFTER DELETE ON changelist_items REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION forget_verdicts();
CREATE TRIGGER forget_verdicts_update AFTER UPDATE ON changelist_items
    REFERENCING OLD TABLE AS before NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION forget_verdicts_on_update();

CREATE TABLE review_comments (
    id            uuid PRIMARY KEY DEFAULT uuid_v7(),
    project_id    uuid NOT NULL REFERENCES projects,
    changelist_id uuid NOT NULL REFERENCES changelists,
    author_id     uuid NOT NULL REFERENCES users,
    path          depot_path,
    body          text NOT NULL CHECK (length(body) BETWEEN 1 AND 10000),
    created_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX review_comments_changelist ON review_comments (changelist_id, id);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON review_comments
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit AFTER INSERT ON review_comments FOR EACH ROW EXECUTE FUNCTION audit();
ALTER TABLE review_comments ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY members_read ON review_comments FOR SELECT
    USING (project_id = ANY ((SELECT my_projects())::uuid[]));
CREATE POLICY members_insert ON review_comments FOR INSERT
    WITH CHECK (project_id = ANY ((SELECT writable_projects('reviewer'))::uuid[]) AND author_id = app_user_id());
GRANT SELECT, INSERT ON review_comments TO depot_service;

-- Integrations -------------------------------------------------------------------------------------------------------
-- What an integrated version was made from: the record that keeps a merge from asking the same thing twice.

ALTER TABLE changelist_items
    ADD COLUMN source_branch_id uuid REFERENCES branches,
    ADD COLUMN source_version   integer CHECK (source_version > 0),
    ADD CHECK ((action = 'integrate') = (source_branch_id IS NOT NULL)),
    ADD CHECK ((source_branch_id IS NULL) = (source_version IS NULL));
ALTER TABLE asset_versions
    ADD COLUMN source_branch_id uuid REFERENCES branches,
    ADD COLUMN source_version   integer;
GRANT UPDATE (source_branch_id, source_version) ON changelist_items TO depot_service;

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC;
GRANT EXECUTE ON FUNCTION set_app_user(uuid, text, text), is_pipeline(), keep_validation_to_pipelines(),
    refuse_own_approval(), forget_verdicts(), forget_verdicts_on_update() TO depot_service;
