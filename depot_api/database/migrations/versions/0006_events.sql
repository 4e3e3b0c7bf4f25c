-- The outbox's readers: refs manifests and webhooks. One worker of the deployment reads for all tenants, so it comes
-- through the SECURITY DEFINER functions below, each of which shows or changes only what its reader needs.

CREATE TYPE delivery_status AS ENUM ('pending', 'delivered', 'dead');

-- How far each reader has come. What it did for an event is durable before its row moves past that event.
CREATE TABLE outbox_consumers (
    name        text PRIMARY KEY,
    xact_id     xid8 NOT NULL DEFAULT '0',
    event_id    bigint NOT NULL DEFAULT 0,
    advanced_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO outbox_consumers (name) VALUES ('refs'), ('webhooks');

CREATE TABLE webhooks (
    id         uuid PRIMARY KEY DEFAULT uuid_v7(),
    project_id uuid NOT NULL REFERENCES projects,
    url        text NOT NULL CHECK (url ~ '^https?://' AND length(url) <= 2048),
    kinds      text[] NOT NULL DEFAULT '{}', -- none: every kind
    is_active  boolean NOT NULL DEFAULT true,
    created_by uuid NOT NULL REFERENCES users,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX webhooks_project ON webhooks (project_id, id);

-- Apart from webhooks, so that neither a SELECT of the service nor the audit log ever holds one.
CREATE TABLE webhook_secrets (
    webhook_id uuid PRIMARY KEY REFERENCES webhooks ON DELETE CASCADE,
    secret     text NOT NULL CHECK (length(secret) >= 32)
);

CREATE TABLE webhook_deliveries (
    id              uuid PRIMARY KEY DEFAULT uuid_v7(),
    project_id      uuid NOT NULL REFERENCES projects,
    webhook_id      uuid NOT NULL REFERENCES webhooks ON DELETE CASCADE,
    event_id        bigint NOT NULL REFERENCES events,
    -- In the order of events: there is one writer, and it reads them by cursor.
    position        bigint GENERATED ALWAYS AS IDENTITY,
    status          delivery_status NOT NULL DEFAULT 'pending',
    attempts        integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    last_status     integer,
    last_error      text,
    created_at      timestamptz NOT NULL DEFAULT now(),
    delivered_at    timestamptz,
    UNIQUE (webhook_id, event_id),
    CHECK ((status = 'delivered') = (delivered_at IS NOT NULL))
);
CREATE INDEX webhook_deliveries_webhook ON webhook_deliveries (webhook_id, position);
-- The first of these is the only one that may be sent: it holds up those behind it.
CREATE INDEX webhook_deliveries_pending ON webhook_deliveries (webhook_id, position) WHERE status = 'pending';

CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON webhooks FOR EACH ROW EXECUTE FUNCTION audit();

-- Row-level security. An address can hold a token, so only managers see webhooks at all. ------------------------------

ALTER TABLE outbox_consumers ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE webhook_secrets ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

ALTER TABLE webhooks ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY managers_read ON webhooks FOR SELECT USING (project_id = ANY ((SELECT my_projects('manager'))::uuid[]));
CREATE POLICY managers_insert ON webhooks FOR INSERT
    WITH CHECK (created_by = app_user_id() AND project_id = ANY ((SELECT writable_projects('manager'))::uuid[]));
CREATE POLICY managers_update ON webhooks FOR UPDATE
    USING (project_id = ANY ((SELECT writable_projects('manager'))::uuid[]));
CREATE POLICY managers_delete ON webhooks FOR DELETE
    USING (project_id = ANY ((SELECT writable_projects('manager'))::uuid[]));
GRANT SELECT, INSERT, DELETE, UPDATE (url, kinds, is_active) ON webhooks TO depot_service;

ALTER TABLE webhook_deliveries ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY managers_read ON webhook_deliveries FOR SELECT
    USING (project_id = ANY ((SELECT my_projects('manager'))::uuid[]));
CREATE POLICY managers_update ON webhook_deliveries FOR UPDATE
    USING (project_id = ANY ((SELECT writable_projects('manager'))::uuid[]));
GRANT SELECT, UPDATE (status, attempts, next_attempt_at, delivered_at) ON webhook_deliveries TO depot_service;

-- Doors of the outbox -------------------------------------------------------------------------------------------------

-- What `consumer` has not done yet, oldest first. Below the snapshot's xmin no transaction can still add an event.
CREATE FUNCTION outbox_events(consumer text, max_events integer)
RETURNS TABLE (xact_id xid8, id bigint, project_id uuid, kind text, payload jsonb)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    SELECT e.xact_id, e.id, e.project_id, e.kind, e.payload
    FROM outbox_consumers c CROSS JOIN LATERAL (
        SELECT * FROM events
        WHERE (events.xact_id, events.id) > (c.xact_id, c.event_id)
          AND events.xact_id < pg_snapshot_xmin(pg_current_snapshot())
        ORDER BY events.xact_id, events.id LIMIT max_events) e
    WHERE c.name = consumer ORDER BY e.xact_id, e.id
$$;

-- Only ever forward: a worker that lost its lead and does not know it yet takes nothing back.
CREATE FUNCTION advance_outbox(consumer text, to_xact_id xid8, to_event_id bigint) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    UPDATE outbox_consumers SET xact_id = to_xact_id, event_id = to_event_id, advanced_at = now()
    WHERE name = consumer AND (xact_id, event_id) < (to_xact_id, to_event_id)
$$;

-- A dump carries transaction ids of another cluster, which may lie in this one's future: such events would stay hidden,
-- and a cursor at one would skip all that is new. Then every event so far moves before all transactions, in the order
-- of ids, and each reader goes back to the first that it may not have done: what it repeats changes nothing.
CREATE FUNCTION adopt_restored_events() RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM events WHERE xact_id >= pg_snapshot_xmax(pg_current_snapshot())
                   UNION ALL
                   SELECT FROM outbox_consumers WHERE xact_id >= pg_snapshot_xmax(pg_current_snapshot())) THEN
        RETURN false;
    END IF;
    ALTER TABLE events DISABLE TRIGGER append_only; -- also holds off writers until the end
    UPDATE outbox_consumers c SET xact_id = '0', event_id = coalesce(
        (SELECT min(e.id) - 1 FROM events e
         WHERE (e.xact_id, e.id) > (c.xact_id, c.event_id) OR e.id > c.event_id),
        c.event_id);
    UPDATE events SET xact_id = '0' WHERE xact_id <> '0';
    ALTER TABLE events ENABLE TRIGGER append_only;
    RETURN true;
END $$;

CREATE FUNCTION ref_user(wanted uuid) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    SELECT jsonb_build_object('id', id, 'username', username, 'display_name', display_name, 'studio_role', studio_role)
    FROM users WHERE id = wanted
$$;

CREATE FUNCTION ref_project(wanted uuid)
RETURNS TABLE (id uuid, name text, description text, status project_status, quota_bytes bigint, default_branch_id uuid,
               created_by jsonb, created_at timestamptz, members jsonb)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    SELECT p.id, p.name, p.description, p.status, p.quota_bytes, p.default_branch_id, ref_user(p.created_by),
           p.created_at,
           (SELECT coalesce(jsonb_agg(jsonb_build_object('user', ref_user(m.user_id), 'role', m.role,
                                                         'created_at', m.created_at) ORDER BY m.user_id), '[]')
            FROM project_members m WHERE m.project_id = p.id)
    FROM projects p WHERE p.id = wanted
$$;

-- The branches of a project: `wanted`, or all of them.
CREATE FUNCTION ref_branches(project uuid, wanted uuid DEFAULT NULL)
RETURNS TABLE (id uuid, name text, description text, parent_id uuid, parent_at bigint, submit_role project_role,
               require_review boolean, require_validation boolean, created_by jsonb, created_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    SELECT b.id, b.name, b.description, b.parent_id, b.parent_at, b.submit_role, b.require_review,
           b.require_validation, ref_user(b.created_by), b.created_at
    FROM branches b WHERE b.project_id = project AND (wanted IS NULL OR b.id = wanted)
$$;

CREATE FUNCTION ref_asset(project uuid, wanted uuid)
RETURNS TABLE (id uuid, path text, asset_type text, tags text[], metadata jsonb, created_by jsonb,
               created_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    SELECT a.id, a.path, a.asset_type, a.tags, a.metadata, ref_user(a.created_by), a.created_at
    FROM assets a WHERE a.project_id = project AND a.id = wanted
$$;

-- What a submitted changelist did, one row for each path it changed, by path key. A move changes two.
CREATE FUNCTION ref_versions(wanted uuid, after_key text, max_rows integer)
RETURNS TABLE (path_key text, asset_id uuid, path text, version integer, sha256 text, size_bytes bigint,
               action item_action, base_version integer, moved_from text, moved_to text, project_id uuid,
               branch_id uuid, branch text, changelist_id uuid, changelist_no bigint, changelist_refs bigint,
               description text, submitted_at timestamptz, author jsonb)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    -- Materialized, so that what is the same for all rows is found once.
    WITH submitted AS MATERIALIZED (
        SELECT c.*, b.name AS branch, ref_user(c.author_id) AS author,
               (SELECT count(*) + count(*) FILTER (WHERE n.action = 'move') FROM changelist_items n
                WHERE n.changelist_id = c.id) AS refs
        FROM changelists c JOIN branches b ON b.id = c.branch_id WHERE c.id = wanted AND c.status = 'submitted')
    SELECT i.key, h.asset_id, h.path, h.version, encode(h.sha256, 'hex'), h.size_bytes, i.action, i.base_version,
           i.moved_from, i.moved_to, c.project_id, c.branch_id, c.branch, c.id, c.number, c.refs, c.description,
           c.submitted_at, c.author
    FROM submitted c
    CROSS JOIN LATERAL (
        SELECT t.path_key AS key, t.action, t.base_version, t.moved_from, NULL::text AS moved_to
        FROM changelist_items t WHERE t.changelist_id = c.id AND t.path_key > after_key
        UNION ALL
        SELECT t.moved_from_key, t.action, t.base_version, NULL, t.path
        FROM changelist_items t WHERE t.changelist_id = c.id AND t.action = 'move' AND t.moved_from_key > after_key
        ORDER BY 1 LIMIT max_rows) i
    CROSS JOIN LATERAL (
        -- `+ 0` keeps it off the index by number, which would read the whole changelist for each of its rows.
        SELECT * FROM branch_heads n
        WHERE n.branch_id = c.branch_id AND n.path_key = i.key AND n.from_no + 0 = c.number OFFSET 0) h
    ORDER BY i.key
$$;

-- Doors of the webhooks -----------------------------------------------------------------------------------------------

CREATE FUNCTION set_webhook_secret(webhook uuid, new_secret text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM webhooks WHERE id = webhook AND project_id = ANY (writable_projects('manager'))) THEN
        RAISE EXCEPTION 'not a manager' USING ERRCODE = 'insufficient_privilege';
    END IF;
    INSERT INTO webhook_secrets (webhook_id, secret) VALUES (webhook, new_secret);
END $$;

-- One delivery for each new event and each webhook that wants it, and the cursor past them, or neither.
CREATE FUNCTION fan_out_webhooks(max_events integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE seen integer;
BEGIN
    IF NOT EXISTS (SELECT FROM outbox_events('webhooks', 1)) THEN
        RETURN 0; -- before the lock, which would cost a transaction id at every look
    END IF;
    PERFORM FROM outbox_consumers WHERE name = 'webhooks' FOR UPDATE;
    WITH batch AS MATERIALIZED (SELECT * FROM outbox_events('webhooks', max_events)),
    fanned AS (
        INSERT INTO webhook_deliveries (project_id, webhook_id, event_id)
        SELECT w.project_id, w.id, b.id FROM batch b JOIN webhooks w ON w.project_id = b.project_id
        WHERE w.is_active AND (w.kinds = '{}' OR b.kind = ANY (w.kinds)) ORDER BY b.xact_id, b.id
        ON CONFLICT DO NOTHING),
    newest AS (SELECT xact_id, id FROM batch ORDER BY xact_id DESC, id DESC LIMIT 1),
    advanced AS (
        UPDATE outbox_consumers c SET xact_id = newest.xact_id, event_id = newest.id, advanced_at = now()
        FROM newest WHERE c.name = 'webhooks')
    SELECT count(*) INTO seen FROM batch;
    RETURN seen;
END $$;

-- For each active webhook its first pending delivery, when that one's time has come.
CREATE FUNCTION due_deliveries(only_webhook uuid DEFAULT NULL)
RETURNS TABLE (id uuid, webhook_id uuid, attempts integer, url text, secret text, event_id bigint,
               project_id uuid, kind text, actor_id uuid, payload jsonb, created_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    SELECT d.id, w.id, d.attempts, w.url, s.secret, e.id, e.project_id, e.kind, e.actor_id, e.payload,
           e.created_at
    FROM webhooks w JOIN webhook_secrets s ON s.webhook_id = w.id
    CROSS JOIN LATERAL (
        SELECT * FROM webhook_deliveries n WHERE n.webhook_id = w.id AND n.status = 'pending'
        ORDER BY n.position LIMIT 1) d
    JOIN events e ON e.id = d.event_id
    WHERE w.is_active AND d.next_attempt_at <= now() AND (only_webhook IS NULL OR w.id = only_webhook)
$$;

-- `retry_seconds` is null when the delivery is given up.
CREATE FUNCTION record_delivery(delivery uuid, delivered boolean, http_status integer, error text,
                                retry_seconds double precision) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    UPDATE webhook_deliveries SET
        status = CASE WHEN delivered THEN 'delivered' WHEN retry_seconds IS NULL THEN 'dead' ELSE 'pending'
                 END::delivery_status,
        attempts = attempts + 1, last_status = http_status, last_error = error,
        next_attempt_at = now() + make_interval(secs => coalesce(retry_seconds, 0)),
        delivered_at = CASE WHEN delivered THEN now() END
    WHERE id = delivery AND status = 'pending'
$$;

REVOKE EXECUTE ON FUNCTION outbox_events, advance_outbox, adopt_restored_events, ref_user, ref_project, ref_branches, ref_asset, ref_versions,
    set_webhook_secret, fan_out_webhooks, due_deliveries, record_delivery FROM PUBLIC;
GRANT EXECUTE ON FUNCTION outbox_events, advance_outbox, adopt_restored_events, ref_project, ref_branches, ref_asset, ref_versions,
    set_webhook_secret, fan_out_webhooks, due_deliveries, record_delivery TO depot_service;
