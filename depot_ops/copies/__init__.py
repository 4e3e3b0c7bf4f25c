"""A second place for backups and the log: copied there, proved there, pruned there, and restored from there."""
