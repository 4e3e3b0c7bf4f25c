-- What a version says that it was integrated from is there, or history would tell later merges what is not so.

-- Whether the branch shows this version, or has shown it before. Inlined by the planner.
CREATE FUNCTION was_on_branch(asset uuid, version integer, branch uuid) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (
        SELECT FROM asset_versions v JOIN branch_lineage l ON l.ancestor_id = v.branch_id AND v.changelist_no <= l.upto_no
        WHERE v.asset_id = asset AND v.number = version AND l.branch_id = branch)
$$;

CREATE FUNCTION refuse_unknown_sources() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    IF app_user_id() IS NOT NULL AND EXISTS (
        SELECT FROM landed v WHERE v.source_branch_id IS NOT NULL
          AND NOT was_on_branch(v.asset_id, v.source_version, v.source_branch_id)) THEN
        RAISE EXCEPTION 'integrated from a version that its source does not have' USING ERRCODE = 'foreign_key_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER refuse_unknown_sources AFTER INSERT ON asset_versions REFERENCING NEW TABLE AS landed
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_unknown_sources();

-- The same shape as items of a changelist, which they come from and go to. From where those came that are shelved now
-- was not kept: they can be taken as what they do.
UPDATE shelf_items SET action = CASE WHEN base_version IS NULL THEN 'add' ELSE 'edit' END::item_action
    WHERE action = 'integrate';
ALTER TABLE shelf_items
    ADD COLUMN source_branch_id    uuid REFERENCES branches,
    ADD COLUMN source_version      integer CHECK (source_version > 0),
    ADD COLUMN lock_fencing_number bigint CHECK (lock_fencing_number > 0),
    ADD CHECK ((action = 'integrate') = (source_branch_id IS NOT NULL)),
    ADD CHECK ((source_branch_id IS NULL) = (source_version IS NULL));

REVOKE EXECUTE ON FUNCTION was_on_branch(uuid, integer, uuid), refuse_unknown_sources() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION was_on_branch(uuid, integer, uuid), refuse_unknown_sources() TO depot_service;
