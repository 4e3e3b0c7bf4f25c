"""The copies of the blob store: made, compared, scrubbed, repaired, collected and restored."""
