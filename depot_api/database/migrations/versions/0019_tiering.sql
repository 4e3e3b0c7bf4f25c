-- Set when the content may be away from the store's own disk: two verified copies of it lie elsewhere, and whoever reads
-- it fetches it back. It may be there all the same: nobody has to say so when it is back.
ALTER TABLE blobs ADD COLUMN evicted_at timestamptz;
CREATE INDEX blobs_evicted ON blobs (sha256) WHERE evicted_at IS NOT NULL;

-- Whoever sends the content brings its bytes along.
CREATE FUNCTION sent_again() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public AS $$
BEGIN
    NEW.evicted_at := NULL;
    RETURN NEW;
END $$;
CREATE TRIGGER sent_again BEFORE UPDATE OF verified_at ON blobs
    FOR EACH ROW WHEN (OLD.evicted_at IS NOT NULL) EXECUTE FUNCTION sent_again();
REVOKE EXECUTE ON FUNCTION sent_again() FROM PUBLIC;
