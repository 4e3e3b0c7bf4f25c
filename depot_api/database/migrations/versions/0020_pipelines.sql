-- A pipeline's token passes validations, in every project where its user contributes. Who could make one of their own
-- could pass their own work, so a role in a project is not enough.
CREATE POLICY pipelines_by_admins ON api_tokens AS RESTRICTIVE FOR INSERT
    WITH CHECK (scope <> 'pipeline' OR (SELECT acts_as_admin()));

-- As before, and an author's own pipeline has no say.
CREATE OR REPLACE FUNCTION keep_submitted_items() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE changelist changelists;
BEGIN
    FOR changelist IN SELECT * FROM changelists WHERE id IN (SELECT DISTINCT changelist_id FROM changed) FOR SHARE LOOP
        IF changelist.status NOT IN ('open', 'pending_review') THEN
            RAISE EXCEPTION 'items of a finished changelist never change' USING ERRCODE = 'restrict_violation';
        END IF;
        IF is_pipeline() THEN
            IF TG_OP <> 'UPDATE' OR changelist.author_id = app_user_id() THEN
                RAISE EXCEPTION 'a pipeline validates what others change' USING ERRCODE = 'insufficient_privilege';
            END IF;
        ELSIF changelist.author_id <> app_user_id() AND NOT app_user_is_admin() THEN
            RAISE EXCEPTION 'items are their author''s to change' USING ERRCODE = 'insufficient_privilege';
        END IF;
    END LOOP;
    RETURN NULL;
END $$;

-- A validation is written on what was put there, never along with it.
CREATE TRIGGER keep_validation_to_pipelines_insert BEFORE INSERT ON changelist_items FOR EACH ROW
    WHEN (NEW.validation <> 'pending') EXECUTE FUNCTION keep_validation_to_pipelines();
