"""Content-addressed store of gzip members on a file system. Knows nothing of HTTP or SQL."""
