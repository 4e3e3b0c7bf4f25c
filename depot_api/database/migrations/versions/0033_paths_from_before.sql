-- What goes away names its path once more: in an item, in a head, in a lock. So these rules are no longer about every
-- mention of a path, but about a path that was not there before: an asset is a path.
ALTER DOMAIN depot_path DROP CONSTRAINT segment_bytes;
ALTER DOMAIN depot_path DROP CONSTRAINT no_workspace_state;
ALTER DOMAIN depot_path DROP CONSTRAINT no_device;

-- Not where a catalogue is made again from what was kept of it: that has no identity.
CREATE FUNCTION refuse_new_path() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public AS $$
BEGIN
    IF app_user_id() IS NOT NULL THEN
        RAISE EXCEPTION 'no new path may be %', NEW.path USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER refuse_new_path AFTER INSERT ON assets FOR EACH ROW
    WHEN ((octet_length(NEW.path) > 255 AND longest_segment_bytes(NEW.path) > 255) OR NEW.path ~* '(^|/)\.depot(/|$)'
          OR NEW.path ~* '(^|/)(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\.[^/]*)?(/|$)')
    EXECUTE FUNCTION refuse_new_path();
REVOKE EXECUTE ON FUNCTION refuse_new_path() FROM PUBLIC;
