"""What is known of a logical backup, and where it lies. A catalogue can be rebuilt from these files alone.

`depot-20261123T010000Z.dump` is the backup, a file or pg_dump's directory, of the database that its record names, and
`depot-20261123T010000Z.dump.json` that record. Until both are complete and proved they are called `.partial-…`, and the
dump is the last to get its name: what has the name is a backup.
"""

import hashlib
import json
import shutil
from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from depot_ops.evidence import Figures, Finding, Status

SCHEMA_VERSION = 3
GLANCE = "complete"
NAME_FORMAT = "depot-%Y%m%dT%H%M%SZ.dump"
PATTERN = "depot-*Z.dump"
PARTIAL_PREFIX = ".partial-"
TRASH_PREFIX = ".trash-"
RECORD_SUFFIX = ".json"


class DumpFormat(StrEnum):
    """pg_dump's formats that pg_restore can read in parallel; only the directory is written in parallel too."""

    CUSTOM = "custom"
    DIRECTORY = "directory"


class Globals(BaseModel):
    """What a cluster has beside its databases, as pg_dumpall writes it: roles, memberships, tablespaces."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sql: str
    sha256: str
    roles: tuple[str, ...]
    has_passwords: bool


class BackupRecord(BaseModel):
    """A logical backup: what was dumped, what lay in the source at that moment, and how it was proved."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1, 2, 3] = 3
    file: str
    format: DumpFormat = DumpFormat.CUSTOM
    sha256: str
    """Of the file; of a directory, of the lines that sha256sum prints for its files, ordered by name."""
    files: dict[str, str] = {}
    """SHA-256 of each file of a directory."""
    size_bytes: int
    database: str
    server_version: str
    tool_version: str
    started_at: AwareDatetime
    finished_at: AwareDatetime
    duration_seconds: float
    row_counts: dict[str, int]
    """Rows in each table (`schema.table`), counted at the source in the snapshot that was dumped."""
    source_objects: dict[str, int]
    """Tables, indexes, policies and so on in the source's catalogue, in the same snapshot."""
    toc_entries: dict[str, int]
    """Entries in the dump's own table of contents, by kind."""
    globals: Globals | None = None
    """What a restore into a new cluster needs first. Version 1 did not have it."""
    validation: tuple[Finding, ...] = ()
    record_sha256: str = ""
    """Of the record itself without this line: a flipped digit would lead retention astray. Since version 3."""

    def sealed(self) -> "BackupRecord":
        """The same with its own hash."""
        return self.model_copy(update={"record_sha256": self._digest()})

    @property
    def is_intact(self) -> bool:
        return self.record_sha256 in ("", self._digest())

    def _digest(self) -> str:
        return hashlib.sha256(self.model_dump_json(exclude={"record_sha256"}).encode()).hexdigest()


class RecordUnusable(Exception):
    """A backup's record is missing or damaged: the file may be good, but nothing proves it."""


class RecordTooNew(Exception):
    """A later version wrote the record: this one cannot judge it."""


def record_path(dump: Path) -> Path:
    """Where the record of `dump` lies."""
    return dump.with_name(dump.name + RECORD_SUFFIX)


def partial_path(final: Path) -> Path:
    """The hidden name that `final` has until it is complete."""
    return final.with_name(PARTIAL_PREFIX + final.name)


def trash_path(final: Path) -> Path:
    """The hidden name that `final` has from when it is deleted until it is gone."""
    return final.with_name(TRASH_PREFIX + final.name)


def stored_bytes(dump: Path) -> int:
    """The size of the file, or of all files of the directory. Raises FileNotFoundError."""
    if dump.is_dir():
        return sum(file.stat().st_size for file in dump.iterdir())
    return dump.stat().st_size


def remove(dump: Path) -> None:
    """Delete the file or the directory."""
    if dump.is_dir():
        shutil.rmtree(dump)
    else:
        dump.unlink()


def load_record(dump: Path) -> BackupRecord:
    """Read the record beside `dump`. Raises RecordUnusable or RecordTooNew."""
    path = record_path(dump)
    try:
        content = json.loads(path.read_bytes())
        if content["schema_version"] > SCHEMA_VERSION:
            raise RecordTooNew(f"{path.name} has schema version {content['schema_version']}: use a newer asset-depot")
        record = BackupRecord.model_validate(content)
    except FileNotFoundError:
        raise RecordUnusable(f"{path.name} is missing: nothing says what {dump.name} should hold") from None
    except (ValidationError, ValueError, KeyError, TypeError) as error:
        raise RecordUnusable(f"{path.name} is damaged: {error}") from error
    if not record.is_intact:
        raise RecordUnusable(f"{path.name} is damaged: it is not what was written")
    return record


def find_backups(directory: Path) -> list[Path]:
    """The dumps in `directory`, oldest first. Raises OSError when it cannot be read.

    A record whose dump is gone counts: someone lost that backup, and that must be seen.
    """
    directory.stat()  # a missing directory would look like an empty one
    dumps = set(directory.glob(PATTERN))
    lost = {path.with_suffix("") for path in directory.glob(PATTERN + RECORD_SUFFIX)} - dumps
    on_its_way = {dump for dump in lost if partial_path(dump).exists() or trash_path(dump).exists()}
    return sorted(dumps | lost - on_its_way)


def newest_backups(directory: Path) -> list[Path]:
    """The newest dump of each database in `directory`, oldest first. Raises OSError when it cannot be read.

    A dump without a usable record is of nobody knows which database: it counts when it could be the newest of one.
    """
    newest: dict[str, Path] = {}
    unknown: list[Path] = []
    for dump in find_backups(directory):
        try:
            newest[load_record(dump).database] = dump
        except (RecordUnusable, RecordTooNew):
            unknown.append(dump)
    oldest = min(newest.values(), default=None)
    suspects = [dump for dump in unknown if oldest is None or dump > oldest]
    return sorted([*newest.values(), *suspects])


def glance(dump: Path) -> Finding:
    """Are `dump` and its record there, and do they agree in size? Does not read the dump: that is `verify`."""
    status, figures = Status.UNHEALTHY, Figures(file=dump.name)
    try:
        record = load_record(dump)
        size_bytes = stored_bytes(dump)
        figures |= {
            "database": record.database,
            "size_bytes": size_bytes,
            "rows": sum(record.row_counts.values()),
            "duration_seconds": record.duration_seconds,
            "finished_at": record.finished_at.isoformat(),
        }
        size = f"{size_bytes:,} of {record.size_bytes:,} bytes"
        detail = f"{record.database}, {size}, finished {record.finished_at:%Y-%m-%d %H:%M} UTC"
        status = Status.HEALTHY if size_bytes == record.size_bytes else Status.UNHEALTHY
    except FileNotFoundError:
        detail = "the file is gone; its record is still there"
    except RecordUnusable as error:
        detail = str(error)
    except (RecordTooNew, OSError) as error:
        status, detail = Status.UNKNOWN, str(error)
    return Finding(check=GLANCE, status=status, detail=detail, figures=figures)
