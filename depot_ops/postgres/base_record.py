"""What is known of a base backup, and where it lies: `<backup dir>/base/<system identifier>/<label>/`.

A directory with its final name is a complete and verified backup: `base.tar.gz`, the server's `backup_manifest` and
the record `backup.json`. A catalogue can be rebuilt from these alone.
"""

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from depot_ops.exclusive import exclusively

SCHEMA_VERSION = 1
ARCHIVE_NAME = "base.tar.gz"
MANIFEST_NAME = "backup_manifest"
RECORD_NAME = "backup.json"
PARTIAL_PREFIX = ".partial-"
LABEL_FORMAT = "%Y%m%dT%H%M%SZ"


class BaseBackupKind(StrEnum):
    """Whether a backup stands alone."""

    FULL = "full"
    INCREMENTAL = "incremental"


class BaseRecordUnusable(Exception):
    """A base backup's record is missing, damaged or too new; the message says which."""


class BaseBackupRecord(BaseModel):
    """A base backup: where in the log it lies, what it builds on, and how it was proved."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    label: str
    kind: BaseBackupKind
    parent: str | None
    """The label of the backup that an incremental one builds on."""
    system_identifier: int
    timeline: int
    start_lsn: str
    stop_lsn: str
    start_segment: str
    stop_segment: str
    segment_size_bytes: int
    server_version: str
    tool_version: str
    superuser: str
    """The role that initdb made, with which a restored cluster can be entered."""
    data_checksums: bool
    started_at: AwareDatetime
    finished_at: AwareDatetime
    """By the server's clock, after the backup's last record: the earliest moment that it can be recovered to."""
    duration_seconds: float
    verify_seconds: float
    size_bytes: int
    """Of the files in it, uncompressed."""
    stored_size_bytes: int
    archive_sha256: str
    manifest_sha256: str
    record_sha256: str = ""
    """Of the record itself without this line: a flipped digit in a time or a position would lead a recovery astray."""

    def sealed(self) -> "BaseBackupRecord":
        """The same with its own hash."""
        return self.model_copy(update={"record_sha256": self._digest()})

    @property
    def is_intact(self) -> bool:
        return self.record_sha256 == self._digest()

    def _digest(self) -> str:
        return hashlib.sha256(self.model_dump_json(exclude={"record_sha256"}).encode()).hexdigest()


class BaseBackup(BaseModel):
    """A base backup where it lies."""

    model_config = ConfigDict(frozen=True)

    path: Path
    record: BaseBackupRecord

    @property
    def archive(self) -> Path:
        return self.path / ARCHIVE_NAME

    @property
    def manifest(self) -> Path:
        return self.path / MANIFEST_NAME


def base_directory(backup_dir: Path, system_identifier: int) -> Path:
    """Where the base backups of a cluster lie."""
    return backup_dir / "base" / str(system_identifier)


def load_base_backup(path: Path) -> BaseBackup:
    """Read the record in `path`. Raises BaseRecordUnusable."""
    record = path / RECORD_NAME
    try:
        content = json.loads(record.read_bytes())
        if content["schema_version"] > SCHEMA_VERSION:
            raise BaseRecordUnusable(
                f"{record} has schema version {content['schema_version']}: use a newer asset-depot"
            )
        loaded = BaseBackupRecord.model_validate(content)
    except (OSError, ValidationError, ValueError, KeyError, TypeError) as error:
        raise BaseRecordUnusable(f"{record} cannot be used: {error}") from error
    if not loaded.is_intact:
        raise BaseRecordUnusable(f"{record} is damaged: it is not what was written")
    if loaded.label != path.name:
        raise BaseRecordUnusable(f"{record} is the record of {loaded.label}")
    return BaseBackup(path=path, record=loaded)


def find_base_backups(backup_dir: Path, system_identifier: int | None = None) -> list[Path]:
    """The base backups of one cluster, or of all, oldest first. Raises OSError when they cannot be listed."""
    backup_dir.stat()  # a missing directory would look like an empty one
    systems = str(system_identifier) if system_identifier is not None else "*"
    found = [path for path in (backup_dir / "base").glob(f"{systems}/*") if path.is_dir()]
    return sorted((path for path in found if not path.name.startswith(".")), key=lambda path: path.name)


class BackupsBeingRead(Exception):
    """A restore reads the base backups and the log; the message says what to do."""


@contextmanager
def kept_for_reading(backup_dir: Path) -> Iterator[None]:
    """No base backup and no log is deleted within the block. Waits until whoever deletes just now has ended."""
    try:
        lock = os.open(_readers_lock(backup_dir), os.O_RDONLY | os.O_CREAT, 0o644)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES):
            raise
        yield  # a disk that was taken to another machine, or may only be read: retention does not run on it
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield
    finally:
        os.close(lock)


@contextmanager
def nobody_reads(backup_dir: Path) -> Iterator[None]:
    """No restore reads base backups or log within the block. Raises BackupsBeingRead when one does."""
    refusal = BackupsBeingRead(f"a restore is reading from {backup_dir}: wait until it has what it needs")
    with exclusively(_readers_lock(backup_dir), refusal, 0o644):
        yield


def _readers_lock(backup_dir: Path) -> Path:
    return backup_dir / "base" / ".lock"


def oldest_needed_segment(backup_dir: Path, system_identifier: int) -> str | None:
    """Where in the log the oldest base backup begins. Raises OSError, BaseRecordUnusable."""
    backups = find_base_backups(backup_dir, system_identifier)
    return load_base_backup(backups[0]).record.start_segment if backups else None


def chain_of(backup: BaseBackup) -> list[BaseBackup]:
    """The backups that `backup` builds on, the full one first, and itself. Raises BaseRecordUnusable."""
    chain = [backup]
    while (parent := chain[0].record.parent) is not None:
        if parent in {link.record.label for link in chain}:
            raise BaseRecordUnusable(f"{backup.path} builds on itself")
        chain.insert(0, load_base_backup(backup.path.with_name(parent)))
        if chain[0].record.system_identifier != backup.record.system_identifier:
            raise BaseRecordUnusable(f"{chain[0].path} is a backup of another cluster than {backup.path}")
    return chain
