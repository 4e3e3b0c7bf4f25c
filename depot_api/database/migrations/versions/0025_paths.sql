-- What depot_api/paths.py refuses besides. Paths that are there already stay: history is never changed.
CREATE FUNCTION longest_segment_bytes(path text) RETURNS integer
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog AS $$
    SELECT max(octet_length(segment)) FROM unnest(string_to_array(path, '/')) segment
$$;

ALTER DOMAIN depot_path ADD CONSTRAINT segment_bytes CHECK (longest_segment_bytes(VALUE) <= 255) NOT VALID;
ALTER DOMAIN depot_path ADD CONSTRAINT no_workspace_state CHECK (VALUE !~* '(^|/)\.depot(/|$)') NOT VALID;
ALTER DOMAIN depot_path ADD CONSTRAINT no_device
    CHECK (VALUE !~* '(^|/)(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\.[^/]*)?(/|$)') NOT VALID;
