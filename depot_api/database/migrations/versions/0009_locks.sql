-- Locks that hold (invariant 9 of the model): leases, fencing, breaking with a reason; typemap rules.

-- Locks --------------------------------------------------------------------------------------------------------------

ALTER TABLE locks ADD CHECK (base_version > 0);
CREATE INDEX locks_holder ON locks (project_id, holder_id, path_key);

-- One id and one fencing number for as long as one holder's lease never ends; nobody chooses them. A lease that ended
-- begins anew, also for the same holder: the path may have changed in between.
CREATE FUNCTION fence_lock() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public AS $$
BEGIN
    IF NEW.expires_at > now() + interval '7 days' THEN
        RAISE EXCEPTION 'a lease is at most 7 days' USING ERRCODE = 'check_violation';
    END IF;
    IF TG_OP = 'UPDATE' AND OLD.holder_id = NEW.holder_id AND OLD.expires_at > now() THEN
        NEW.id := OLD.id;
        NEW.fencing_number := OLD.fencing_number;
        NEW.acquired_at := OLD.acquired_at;
        RETURN NEW;
    END IF;
    NEW.id := uuid_v7();
    NEW.fencing_number := nextval('lock_fencing_numbers');
    NEW.acquired_at := now();
    RETURN NEW;
END $$;
CREATE TRIGGER fence_lock BEFORE INSERT OR UPDATE ON locks FOR EACH ROW EXECUTE FUNCTION fence_lock();
REVOKE UPDATE (fencing_number, acquired_at) ON locks FROM depot_service;

-- A lock is its holder's; one whose lease ended can be taken over, for oneself.
CREATE POLICY as_holder ON locks AS RESTRICTIVE FOR INSERT WITH CHECK (holder_id = app_user_id());
CREATE POLICY own_lock_update ON locks AS RESTRICTIVE FOR UPDATE
    USING (holder_id = app_user_id() OR expires_at <= now()) WITH CHECK (holder_id = app_user_id());
CREATE POLICY own_lock_delete ON locks AS RESTRICTIVE FOR DELETE USING (holder_id = app_user_id());

-- Whatever writes a head: no path changes while someone else holds it.
CREATE FUNCTION refuse_locked_heads() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    IF app_user_id() IS NOT NULL AND EXISTS (
        SELECT FROM landed CROSS JOIN LATERAL (
            SELECT FROM locks l WHERE l.project_id = landed.project_id AND l.path_key = landed.path_key
              AND l.holder_id <> app_user_id() AND l.expires_at > now() OFFSET 0) held) THEN
        RAISE EXCEPTION 'a path is locked by someone else' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER refuse_locked AFTER INSERT ON branch_heads REFERENCING NEW TABLE AS landed
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_locked_heads();

CREATE TABLE lock_breaks (
    id             uuid PRIMARY KEY DEFAULT uuid_v7(),
    project_id     uuid NOT NULL REFERENCES projects,
    lock_id        uuid NOT NULL,
    path           depot_path NOT NULL,
    holder_id      uuid NOT NULL REFERENCES users,
    fencing_number bigint NOT NULL,
    broken_by      uuid NOT NULL REFERENCES users,
    reason         text NOT NULL CHECK (length(reason) <= 10000 AND reason ~ '\S'),
    broken_at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX lock_breaks_project ON lock_breaks (project_id, id);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON lock_breaks
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit AFTER INSERT ON lock_breaks FOR EACH ROW EXECUTE FUNCTION audit();
ALTER TABLE lock_breaks ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY members_read ON lock_breaks FOR SELECT USING (project_id = ANY ((SELECT my_projects())::uuid[]));
GRANT SELECT ON lock_breaks TO depot_service;

-- The one door to someone else's live lock. No row where it is gone already. It waits for a submit that is under way,
-- which has relied on the lock.
CREATE FUNCTION break_lock(broken_id uuid, why text) RETURNS SETOF locks
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE
    project uuid := (SELECT project_id FROM locks WHERE id = broken_id);
    broken locks;
BEGIN
    IF project <> ALL (writable_projects('lead')) THEN
        RAISE EXCEPTION 'only leads and above break locks' USING ERRCODE = 'insufficient_privilege';
    END IF;
    PERFORM FROM changelist_counters WHERE project_id = project FOR SHARE;
    DELETE FROM locks WHERE id = broken_id RETURNING * INTO broken;
    IF FOUND THEN
        INSERT INTO lock_breaks (project_id, lock_id, path, holder_id, fencing_number, broken_by, reason)
            VALUES (project, broken.id, broken.path, broken.holder_id, broken.fencing_number, app_user_id(), why);
        RETURN NEXT broken;
    END IF;
END $$;

-- The number of the lock that an author relied on: a submit is refused when that lock is not live any more.
ALTER TABLE changelist_items ADD COLUMN lock_fencing_number bigint CHECK (lock_fencing_number > 0);
GRANT UPDATE (lock_fencing_number) ON changelist_items TO depot_service;

-- Typemap ------------------------------------------------------------------------------------------------------------

CREATE TYPE lock_scope AS ENUM ('branch', 'project');

-- In order; of the rules that match a path, the last one holds.
CREATE TABLE typemap_rules (
    project_id uuid NOT NULL REFERENCES projects,
    position   integer NOT NULL CHECK (position >= 0),
    pattern    text NOT NULL CHECK (octet_length(pattern) BETWEEN 1 AND 1024),
    exclusive  boolean NOT NULL DEFAULT false,
    mergeable  boolean NOT NULL DEFAULT false,
    asset_type text NOT NULL DEFAULT '',
    scope      lock_scope NOT NULL DEFAULT 'project',
    PRIMARY KEY (project_id, position)
);
CREATE TRIGGER audit AFTER INSERT OR DELETE ON typemap_rules FOR EACH ROW EXECUTE FUNCTION audit();
ALTER TABLE typemap_rules ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY members_read ON typemap_rules FOR SELECT USING (project_id = ANY ((SELECT my_projects())::uuid[]));
CREATE POLICY members_insert ON typemap_rules FOR INSERT
    WITH CHECK (project_id = ANY ((SELECT writable_projects('lead'))::uuid[]));
CREATE POLICY members_delete ON typemap_rules FOR DELETE
    USING (project_id = ANY ((SELECT writable_projects('lead'))::uuid[]));
GRANT SELECT, INSERT, DELETE ON typemap_rules TO depot_service;

REVOKE EXECUTE ON FUNCTION fence_lock(), refuse_locked_heads(), break_lock(uuid, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION fence_lock(), refuse_locked_heads(), break_lock(uuid, text) TO depot_service;
