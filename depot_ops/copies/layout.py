"""The names that backups and the log have at a place: those that they have here, below two folders.

Who fetches `backups/` and `wal/` with whatever program has a BACKUP_DIR and a WAL_ARCHIVE_DIR.
"""

from pathlib import Path

BACKUPS = "backups"
WAL = "wal"


def backup_key(backup_dir: Path, path: Path) -> str:
    """The key of a file of the backup directory."""
    return f"{BACKUPS}/{path.relative_to(backup_dir).as_posix()}"


def wal_key(archive_root: Path, path: Path) -> str:
    """The key of a file of the archive of the log."""
    return f"{WAL}/{path.relative_to(archive_root).as_posix()}"
