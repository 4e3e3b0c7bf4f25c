-- Until the transaction ends the changelist stays as its reviewer sees it: whoever changes it comes before or after the
-- verdict. A reviewer may not update it, so the row cannot be locked without this door.
CREATE FUNCTION hold_for_verdict(held uuid) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    SELECT FROM changelists WHERE id = held AND project_id = ANY (writable_projects('reviewer')) FOR SHARE
$$;

-- What is right for one branch may be wrong for another, and who may say so differs.
CREATE FUNCTION forget_verdicts_of_branch() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    UPDATE reviews SET verdict = 'pending', decided_at = NULL WHERE verdict <> 'pending' AND changelist_id = NEW.id;
    RETURN NULL;
END $$;
CREATE TRIGGER forget_verdicts AFTER UPDATE OF branch_id ON changelists
    FOR EACH ROW WHEN (OLD.branch_id IS DISTINCT FROM NEW.branch_id) EXECUTE FUNCTION forget_verdicts_of_branch();

REVOKE EXECUTE ON FUNCTION hold_for_verdict(uuid), forget_verdicts_of_branch() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION hold_for_verdict(uuid) TO depot_service;
