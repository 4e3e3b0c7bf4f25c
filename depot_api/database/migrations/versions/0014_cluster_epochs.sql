-- Each promotion begins an epoch, as its first write. A server that was the primary before stays in an older one, so
-- that the service can tell it from the one that counts, although both take writes.

CREATE TABLE cluster_epochs (
    epoch    bigint PRIMARY KEY CHECK (epoch > 0),
    node     text NOT NULL CHECK (node <> ''),
    reason   text NOT NULL CHECK (reason <> ''),
    began_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
ALTER TABLE cluster_epochs ENABLE ROW LEVEL SECURITY;
ALTER TABLE cluster_epochs FORCE ROW LEVEL SECURITY;

INSERT INTO cluster_epochs (epoch, node, reason) VALUES (1, 'primary', 'the depot was made');

-- The service's only door: a number, and no names of servers.
CREATE FUNCTION cluster_epoch() RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    SELECT max(epoch) FROM cluster_epochs
$$;
REVOKE ALL ON FUNCTION cluster_epoch() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION cluster_epoch() TO depot_service;

-- `above` is the highest epoch that anyone has seen: a database that was restored from before it must get past it.
CREATE FUNCTION begin_cluster_epoch(promoted text, why text, above bigint DEFAULT 0) RETURNS bigint
LANGUAGE sql SET search_path = pg_catalog, public AS $$
    INSERT INTO cluster_epochs (epoch, node, reason)
    SELECT greatest(max(epoch), above) + 1, promoted, why FROM cluster_epochs
    RETURNING epoch
$$;
REVOKE ALL ON FUNCTION begin_cluster_epoch(text, text, bigint) FROM PUBLIC;

-- A past epoch is history: rewriting it would let an old primary back in.
CREATE FUNCTION refuse_epoch_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'cluster epochs are only ever added' USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER cluster_epochs_are_history BEFORE UPDATE OR DELETE OR TRUNCATE ON cluster_epochs
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_epoch_change();
