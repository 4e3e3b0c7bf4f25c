"""The evidence of a restore drill, and where it lies: `<backup dir>/drills/<label>.json`, `.md` and `.html`.

The record is written when a drill begins, as one that has not ended, and again at its end: a drill that was killed
leaves the first, and the next one marks it as failed.
"""

import json
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from depot_ops.drills.pages import as_html, as_markdown
from depot_ops.durable import PARTIAL_PREFIX, make_directories, write_private
from depot_ops.evidence import Figures, Finding, Status
from depot_ops.postgres.recovery import RestoreReport

SCHEMA_VERSION = 1
DIRECTORY_NAME = "drills"
LABEL_FORMAT = "%Y%m%dT%H%M%S.%fZ"
PASSED = "restore_drill"
NOT_ENDED = "it has not ended: it is running, or was killed"
KILLED = "it was killed before its end"


class DrillRecordUnusable(Exception):
    """A drill's record is damaged or too new; the message says which."""


class DrillKind(StrEnum):
    """What a drill restores."""

    BASE = "base"
    """The newest base backup, and the log up to a row that was written after it."""
    LOGICAL = "logical"
    """The newest dump."""


class DrillResult(StrEnum):
    """How a drill ended. One that could not run has failed."""

    PASSED = "passed"
    FAILED = "failed"
    UNFINISHED = "unfinished"

    @property
    def status(self) -> Status:
        return {
            DrillResult.PASSED: Status.HEALTHY,
            DrillResult.FAILED: Status.UNHEALTHY,
            DrillResult.UNFINISHED: Status.UNKNOWN,
        }[self]


class Canary(BaseModel):
    """The row that was written after the base backup, and that the restored cluster has to have."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: UUID
    written_at: AwareDatetime
    """By the server's clock."""
    lsn: str
    """A position behind its commit."""
    segment: str
    """Of the log, in which its commit lies."""
    forced: bool
    """Whether it arrived only when the server was told to switch segments."""


class DrillRecord(BaseModel):
    """What a drill did, found and took. Filled in as it goes: one that fails half-way says how far it came.

    Seconds among the figures: `fetch` is backup and log out of their stores, unpacked and proved; `replay` the log, or
    the loading of a dump; `open` until the smoke queries are answered; `rto` these three: after so long users could
    work again. `verify` is what users need not wait for. `rpo` is how long the canary's commit took into the archive or
    the stream, or how old the dump was: a disaster just before would have lost so much. With the second place, the time
    is added that the oldest part of the log had waited to be copied there.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    schema_version: Literal[1] = 1
    kind: DrillKind
    label: str
    backup: str | None = None
    """The base backup's label, or the dump's file name."""
    from_place: str | None = None
    """The second place, of which everything was fetched; None when it lay here."""
    result: DrillResult = DrillResult.UNFINISHED
    reason: str = NOT_ENDED
    started_at: AwareDatetime
    finished_at: AwareDatetime | None = None
    tool_version: str
    system_identifier: int | None = None
    canary: Canary | None = None
    restored: RestoreReport | None = None
    replayed_to_lsn: str | None = None
    figures: Figures = {}
    findings: list[Finding] = []

    @property
    def summary(self) -> Finding:
        """The drill as one finding."""
        kind = f"{self.kind} from {self.from_place}" if self.from_place else str(self.kind)
        backup = f"{kind} {self.backup}: " if self.backup else f"{kind}: "
        figures: Figures = {"file": self.label, "kind": self.kind.value, **self.figures}
        return Finding(check=PASSED, status=self.result.status, detail=backup + self.reason, figures=figures)


def begin(kind: DrillKind, tool_version: str, from_place: str | None = None) -> DrillRecord:
    """The record of a drill that begins now."""
    now = datetime.now(UTC)
    label = now.strftime(LABEL_FORMAT)
    return DrillRecord(kind=kind, label=label, from_place=from_place, started_at=now, tool_version=tool_version)


def record_path(backup_dir: Path, label: str) -> Path:
    """Where the record of a drill lies."""
    return backup_dir / DIRECTORY_NAME / f"{label}.json"


def publish(record: DrillRecord, backup_dir: Path) -> None:
    """Write the record and its pages, each whole or not at all. Raises OSError."""
    path = record_path(backup_dir, record.label)
    make_directories(path.parent)
    document = record.model_dump(mode="json")
    write_private(path.with_suffix(".md"), as_markdown(document))
    write_private(path.with_suffix(".html"), as_html(document))
    write_private(path, json.dumps(document, indent=2))


def load_drill(path: Path) -> DrillRecord:
    """Read one record. Raises DrillRecordUnusable."""
    try:
        content = json.loads(path.read_bytes())
        if content["schema_version"] > SCHEMA_VERSION:
            raise DrillRecordUnusable(f"{path} has schema version {content['schema_version']}: use a newer asset-depot")
        return DrillRecord.model_validate(content)
    except (OSError, ValidationError, ValueError, KeyError, TypeError) as error:
        raise DrillRecordUnusable(f"{path} cannot be used: {error}") from error


def find_drills(backup_dir: Path) -> list[Path]:
    """The records of the drills, oldest first. Raises OSError when the backup directory cannot be read."""
    backup_dir.stat()  # a missing directory would look like one without drills
    return sorted(path for path in (backup_dir / DIRECTORY_NAME).glob("*.json") if not path.name.startswith("."))


def close_killed(backup_dir: Path) -> None:
    """Mark the drills that never ended as failed. Only for whoever knows that none is running. Raises OSError."""
    for path in find_drills(backup_dir):
        try:
            record = load_drill(path)
        except DrillRecordUnusable:
            continue  # listing and judging drills name it; it must not keep the next one from running
        if record.result is DrillResult.UNFINISHED:
            record.result, record.reason, record.finished_at = DrillResult.FAILED, KILLED, datetime.now(UTC)
            publish(record, backup_dir)
    for partial in (backup_dir / DIRECTORY_NAME).glob(PARTIAL_PREFIX + "*"):
        partial.unlink(missing_ok=True)
