"""The disaster-recovery checklist: walked by the program, signed by a person, with the evidence for each line."""

import hashlib
import time
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

from depot_ops.durable import write_whole
from depot_ops.evidence import Figures, Finding, Status, worst
from depot_ops.postgres.base_record import BaseRecordUnusable, oldest_needed_segment
from depot_ops.postgres.binaries import BinariesNotFound, find_binaries
from depot_ops.postgres.dump import BackupError, take_logical_backup
from depot_ops.postgres.dump_checks import sha256_of, verify_newest
from depot_ops.postgres.standby import StandbyUnknown, ask_standby, primary_position
from depot_ops.postgres.wal.archive import ArchiveError, open_archive
from depot_ops.postgres.wal.content import BadWalFile
from depot_ops.postgres.wal.inventory import check_continuity, take_stock
from depot_ops.postgres.wal.names import parse_lsn
from depot_ops.postgres.wal.progress import check_freshness
from depot_ops.postgres.wal.timelines import UnknownTimeline
from depot_ops.reports.failovers import newest_document
from depot_ops.reports.nightly import check_backup_age

CATCH_UP_SECONDS = 60.0
POLL_SECONDS = 0.1
NAME_FORMAT = "dr-checklist-%Y%m%dT%H%M%SZ"


DIRECTORY = "checklists"  # in the directory of the backups


class Line(StrEnum):
    """The lines of the runbook's checklist, in its order."""

    LAST_GOOD_BACKUP = "last_good_backup"
    WAL_CAPTURED = "wal_sequence_captured"
    SAFETY_BACKUP = "safety_backup_taken"
    REPLICA_CAUGHT_UP = "replica_caught_up"
    FAILOVER_DOCUMENTED = "failover_documented"


TITLES = {
    Line.LAST_GOOD_BACKUP: "The last automated backup is there and sound",
    Line.WAL_CAPTURED: "The sequence of the log in the archive is captured, without a gap and to its end",
    Line.SAFETY_BACKUP: "A backup was taken for safety before anything risky",
    Line.REPLICA_CAUGHT_UP: "The standby has replayed what the primary has written (pg_last_wal_replay_lsn)",
    Line.FAILOVER_DOCUMENTED: "The failover is documented",
}


class ChecklistScope(BaseModel):
    """What the checklist is walked over. A line for which nothing is given is unknown, which signs nothing off."""

    model_config = ConfigDict(frozen=True)

    backup_dir: Path
    archive_dir: Path | None = None
    dump_url: str | None = None
    primary_url: str | None = None
    replica_url: str | None = None
    failover_document: Path | None = None
    """Left out: the last one that a failover wrote by itself."""
    catch_up_seconds: float = CATCH_UP_SECONDS


class ChecklistLine(BaseModel):
    """One line: the answer, and every finding that it rests on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    line: Line
    title: str
    status: Status
    evidence: tuple[Finding, ...]


class Checklist(BaseModel):
    """A checklist that was walked. It is signed off only when every line is healthy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    status: Status
    signed_off: bool
    signed_by: str
    started_at: AwareDatetime
    finished_at: AwareDatetime
    lines: tuple[ChecklistLine, ...]
    document_sha256: str = ""
    """Of the document itself without this line: what was signed cannot be changed unnoticed."""

    def sealed(self) -> "Checklist":
        """The same with its own hash."""
        return self.model_copy(update={"document_sha256": self._digest()})

    @property
    def is_intact(self) -> bool:
        return self.document_sha256 == self._digest()

    def _digest(self) -> str:
        return hashlib.sha256(self.model_dump_json(exclude={"document_sha256"}).encode()).hexdigest()


def walk(scope: ChecklistScope, signed_by: str) -> Checklist:
    """Walk every line, also behind one that fails. Takes a logical backup, and finishes a segment of the log."""
    started_at = datetime.now(UTC)
    steps: dict[Line, Callable[[ChecklistScope], list[Finding]]] = {
        Line.LAST_GOOD_BACKUP: _last_good_backup,
        Line.WAL_CAPTURED: _wal_captured,
        Line.SAFETY_BACKUP: _safety_backup,
        Line.REPLICA_CAUGHT_UP: _replica_caught_up,
        Line.FAILOVER_DOCUMENTED: _failover_documented,
    }
    evidence = {line: tuple(step(scope)) for line, step in steps.items()}
    lines = tuple(
        ChecklistLine(line=line, title=TITLES[line], status=worst(found), evidence=found)
        for line, found in evidence.items()
    )
    status = worst(finding for found in evidence.values() for finding in found)
    return Checklist(
        status=status,
        signed_off=status is Status.HEALTHY,
        signed_by=signed_by,
        started_at=started_at,
        finished_at=datetime.now(UTC),
        lines=lines,
    ).sealed()


def write_documents(checklist: Checklist, directory: Path) -> tuple[Path, Path]:
    """Leave the checklist as JSON and as Markdown in `directory`, and say where. Raises OSError."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    document = directory / (checklist.started_at.strftime(NAME_FORMAT) + ".json")
    page = document.with_suffix(".md")
    write_whole(page, as_markdown(checklist))
    write_whole(document, checklist.model_dump_json(indent=2) + "\n")
    return document, page


def as_markdown(checklist: Checklist) -> str:
    """The checklist as a page for the wiki."""
    text = [
        "# Disaster-recovery checklist",
        "",
        f"**{'Signed off' if checklist.signed_off else 'NOT signed off'}** by {_plain(checklist.signed_by)}"
        f" on {checklist.finished_at:%Y-%m-%d %H:%M:%S} UTC: {checklist.status}.",
        "",
    ]
    for line in checklist.lines:
        mark = "x" if line.status is Status.HEALTHY else " "
        text += [f"- [{mark}] {line.title}: **{line.status}**"]
        for finding in line.evidence:
            figures = "".join(f"; {name} {value}" for name, value in finding.figures.items())
            text += [f"  - {finding.check}: {_plain(finding.detail + figures)} ({finding.checked_at:%H:%M:%S} UTC)"]
    text += ["", f"SHA-256 of the signed document: `{checklist.document_sha256}`", ""]
    return "\n".join(text)


def _plain(text: str) -> str:
    return " ".join(text.split())


def _last_good_backup(scope: ChecklistScope) -> list[Finding]:
    return [*verify_newest(scope.backup_dir), check_backup_age(scope.backup_dir)]


def _wal_captured(scope: ChecklistScope) -> list[Finding]:
    line = Line.WAL_CAPTURED
    if scope.archive_dir is None or scope.primary_url is None:
        return [_not_given(line, "--archive-dir and --primary-url")]
    try:
        archive = open_archive(scope.archive_dir)
        fresh = check_freshness(scope.primary_url, archive)
        oldest = oldest_needed_segment(scope.backup_dir, archive.system_identifier)
        stocks = take_stock(archive, oldest)
    except (ArchiveError, BadWalFile, UnknownTimeline, BaseRecordUnusable, OSError) as error:
        return [Finding(check=line, status=Status.UNKNOWN, detail=str(error))]
    captured = "; ".join(f"timeline {stock.timeline}: {stock.first} to {stock.last}" for stock in stocks)
    status = Status.HEALTHY if stocks else Status.UNHEALTHY
    sequence = Finding(check=line, status=status, detail=captured or "the archive has no segment")
    return [sequence, check_continuity(archive, oldest), fresh]


def _safety_backup(scope: ChecklistScope) -> list[Finding]:
    line = Line.SAFETY_BACKUP
    if scope.dump_url is None:
        return [_not_given(line, "DEPOT_DUMP_URL")]
    try:
        record = take_logical_backup(scope.dump_url, scope.backup_dir, find_binaries())
    except (BackupError, BinariesNotFound) as error:
        return [Finding(check=line, status=Status.UNHEALTHY, detail=str(error))]
    figures: Figures = {"file": record.file, "size_bytes": record.size_bytes, "sha256": record.sha256}
    detail = f"taken at {record.finished_at:%Y-%m-%d %H:%M:%S} UTC and proved"
    return [Finding(check=line, status=Status.HEALTHY, detail=detail, figures=figures)]


def _replica_caught_up(scope: ChecklistScope) -> list[Finding]:
    """Wait until the standby has replayed what the primary had written when this was asked."""
    line = Line.REPLICA_CAUGHT_UP
    if scope.replica_url is None or scope.primary_url is None:
        return [_not_given(line, "--replica-url and --primary-url")]
    deadline = time.monotonic() + scope.catch_up_seconds
    try:
        system, position = primary_position(scope.primary_url)
        standby = ask_standby(scope.replica_url)
        while parse_lsn(standby.replayed_lsn) < parse_lsn(position) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            standby = ask_standby(scope.replica_url)
    except StandbyUnknown as error:
        return [Finding(check=line, status=Status.UNKNOWN, detail=str(error))]
    behind = max(0, parse_lsn(position) - parse_lsn(standby.replayed_lsn))
    figures: Figures = {"primary_lsn": position, "replayed_lsn": standby.replayed_lsn, "behind_bytes": behind}
    if not standby.in_recovery or standby.system_identifier != system:
        detail = "it is no standby of this primary"
    elif behind:
        detail = f"it has not caught up within {scope.catch_up_seconds:g} s: {behind:,} bytes would be lost"
    else:
        detail = f"it has replayed to {standby.replayed_lsn}; the primary was at {position}"
        return [Finding(check=line, status=Status.HEALTHY, detail=detail, figures=figures)]
    return [Finding(check=line, status=Status.UNHEALTHY, detail=detail, figures=figures)]


def _failover_documented(scope: ChecklistScope) -> list[Finding]:
    line = Line.FAILOVER_DOCUMENTED
    document = scope.failover_document or newest_document(scope.backup_dir)
    if document is None:
        return [_not_given(line, "--failover-document")]
    try:
        text = document.read_text(errors="replace").strip()
        sha256 = sha256_of(document)
    except OSError as error:
        return [Finding(check=line, status=Status.UNHEALTHY, detail=f"it cannot be read: {error}")]
    if not text:
        return [Finding(check=line, status=Status.UNHEALTHY, detail=f"{document} is empty")]
    figures: Figures = {"file": str(document), "sha256": sha256}
    detail = f"begins {text.splitlines()[0][:100]!r}"
    return [Finding(check=line, status=Status.HEALTHY, detail=detail, figures=figures)]


def _not_given(line: Line, what: str) -> Finding:
    return Finding(check=line, status=Status.UNKNOWN, detail=f"{what} was not given: nobody looked")
