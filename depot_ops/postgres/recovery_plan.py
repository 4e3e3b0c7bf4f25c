"""Planning a recovery: which backup, along which timelines, from which segments. Refuses before anything is written."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from depot_ops.postgres.base_record import (
    BaseBackup,
    BaseBackupRecord,
    BaseRecordUnusable,
    chain_of,
    find_base_backups,
    load_base_backup,
)
from depot_ops.postgres.wal.archive import ArchiveError, WalArchive
from depot_ops.postgres.wal.content import BadWalFile
from depot_ops.postgres.wal.names import WalName, parse_lsn, parse_wal_name
from depot_ops.postgres.wal.timelines import TimelinePath, UnknownTimeline, inherited_start, newest_path, path_to

NAMED_MISSING = 10


class RestoreError(Exception):
    """Nothing was restored; the message says what was seen and what to do."""


class RestoreRefused(RestoreError):
    """What would be needed is not there or not intact: nothing was started."""


class SourceIncomplete(RestoreRefused):
    """A backup or a part of the log is missing or damaged: another copy may have it."""


class TargetKind(StrEnum):
    """How the end of a recovery is named."""

    LATEST = "latest"
    TIME = "time"
    LSN = "lsn"
    NAME = "name"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a recovery shall end: a time includes what was committed at it, a position what was written before it."""

    kind: TargetKind = TargetKind.LATEST
    value: str = ""

    @classmethod
    def at_time(cls, moment: datetime) -> "Target":
        # The server takes no Z: an offset in digits it does.
        return cls(TargetKind.TIME, moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f+00"))

    @property
    def time(self) -> datetime:
        return datetime.fromisoformat(self.value)

    @property
    def position(self) -> int:
        return parse_lsn(self.value)

    def __str__(self) -> str:
        return f"{self.kind} {self.value}".strip()


@dataclass(frozen=True, slots=True)
class RecoveryPlan:
    """What a recovery is made of."""

    target: Target
    chain: tuple[BaseBackup, ...]
    path: TimelinePath
    segments: tuple[WalName, ...]
    first_segment_number: int
    inherited: WalName | None = None
    """Of which ancestor's file the last segment is made: the timeline began in it, and its own is not archived yet."""
    left_to_stream: tuple[str, ...] = ()
    """Segments up to the timeline's beginning that the archive lacks: only a stream can have them."""

    @property
    def base(self) -> BaseBackup:
        return self.chain[-1]

    @property
    def segment_size_bytes(self) -> int:
        return self.base.record.segment_size_bytes

    @property
    def last_segment_start(self) -> int:
        """The position at which the last segment begins."""
        return (self.first_segment_number + len(self.segments) - 1) * self.segment_size_bytes

    @property
    def archived_end(self) -> int:
        """So far at least the log in the archive leads."""
        return max(self.last_segment_start, self.path.branch_position)

    @property
    def needed_bytes(self) -> int:
        """Disk that restoring takes: every element unpacked, their combination, and the log twice."""
        unpacked = sum(element.record.size_bytes for element in self.chain)
        # A cluster that has grown is as large as the full backup and all that came since.
        combined = unpacked if len(self.chain) > 1 else 0
        return unpacked + combined + 2 * len(self.segments) * self.segment_size_bytes


def plans(
    backup_dir: Path,
    archive: WalArchive,
    target: Target,
    *,
    timeline: int | None = None,
    base: str | None = None,
    streamed: bool = False,
    leave_out: Callable[[str], None] = lambda _: None,
) -> Iterator[RecoveryPlan]:
    """The ways to `target`, from the newest base backup that can lead there on. Raises RestoreRefused.

    Where the log is also `streamed`, the archive's end need not reach to where the timeline began. `leave_out` is told
    which backups cannot be used: an older one leads to the same moment, with more log.
    """
    try:
        for chain in _before(_usable(backup_dir, archive.system_identifier, base, leave_out), target):
            yield _plan(chain, archive, target, timeline, streamed=streamed)
    except (ArchiveError, BadWalFile, UnknownTimeline, BaseRecordUnusable, OSError) as error:
        raise SourceIncomplete(str(error)) from error


def _usable(
    backup_dir: Path, system_identifier: int, base: str | None, leave_out: Callable[[str], None]
) -> Iterator[list[BaseBackup]]:
    """Each base backup behind what it builds on, the newest first, when its turn comes."""
    paths = find_base_backups(backup_dir, system_identifier)
    if base is not None:
        paths = [path for path in paths if path.name == base]
    if not paths:
        named = f" named {base}" if base else ""
        raise SourceIncomplete(f"there is no base backup{named} of the cluster {system_identifier} in {backup_dir}")
    unusable: BaseRecordUnusable | None = None
    found = False
    for path in reversed(paths):
        try:
            chain = chain_of(load_base_backup(path))
        except BaseRecordUnusable as error:
            unusable = unusable or error
            leave_out(f"{path.name} is left out: {error}")
            continue
        found = True
        yield chain
    if unusable is not None and not found:
        raise unusable


def _before(chains: Iterator[list[BaseBackup]], target: Target) -> Iterator[list[BaseBackup]]:
    """A backup is consistent from its end on: to an earlier target it does not lead, whatever the server may say."""
    oldest: BaseBackupRecord | None = None
    leads = False
    for chain in chains:
        oldest = chain[-1].record
        if _leads_to(target, oldest):
            leads = True
            yield chain
    if oldest is not None and not leads:
        raise RestoreRefused(
            f"the target ({target}) lies before the end of the oldest base backup, {oldest.label}, which is at"
            f" {oldest.finished_at.isoformat()} and {oldest.stop_lsn}: nothing leads back there"
        )


def _leads_to(target: Target, record: BaseBackupRecord) -> bool:
    if target.kind is TargetKind.TIME:
        return record.finished_at <= target.time
    if target.kind is TargetKind.LSN:
        return parse_lsn(record.stop_lsn) <= target.position
    return True


def _plan(
    chain: list[BaseBackup], archive: WalArchive, target: Target, timeline: int | None, *, streamed: bool
) -> RecoveryPlan:
    record = chain[-1].record
    stop, size = parse_lsn(record.stop_lsn), record.segment_size_bytes
    path = newest_path(archive, record.timeline, stop) if timeline is None else path_to(archive, timeline)
    if not path.contains(record.timeline, stop):
        raise RestoreRefused(
            f"timeline {path.timeline} does not go through the end of the base backup {record.label}, {record.stop_lsn}"
            f" on timeline {record.timeline}: choose another --timeline or --base"
        )
    first = parse_lsn(record.start_lsn) // size
    stop_number = (stop - 1) // size
    last = _last_segment(archive, path, size, target, stop_number)
    names = path.segment_names(first, last, size)
    known = {name.name for name in archive.names()}
    missing = [name for name in names if name not in known]
    inherited = None
    if missing[-1:] == names[-1:] and last == path.branch_position // size:
        inherited = inherited_start(path, known, size)
        missing = missing[:-1] if inherited else missing
    left_to_stream: list[str] = []
    while streamed and missing and missing[-1] == names[-1] and first + len(names) - 1 > stop_number:
        left_to_stream.insert(0, names.pop())
        missing.pop()
    if missing:
        raise SourceIncomplete(told_missing(missing, names))
    segments = tuple(name for text in names if (name := parse_wal_name(text)))
    return RecoveryPlan(target, tuple(chain), path, segments, first, inherited, tuple(left_to_stream))


def told_missing(missing: Sequence[str], needed: Sequence[str]) -> str:
    """What to say when the archive does not have these of the segments that a recovery needs."""
    more = f" and {len(missing) - NAMED_MISSING} more" if len(missing) > NAMED_MISSING else ""
    return (
        f"not in the archive: {', '.join(missing[:NAMED_MISSING])}{more}. Of the log from {needed[0]} to"
        f" {needed[-1]} that this recovery needs, nothing behind the first of them can be reached"
    )


def _last_segment(archive: WalArchive, path: TimelinePath, size: int, target: Target, stop: int) -> int:
    """The last segment along `path` that the archive has, its beginning or the target needs."""
    numbers = [
        number
        for name in archive.names()
        if name.is_whole_segment
        and path.timeline_of_segment(number := name.segment_number(size), size) == name.timeline
    ]
    last = max([stop, (path.branch_position - 1) // size, *numbers])
    if target.kind is not TargetKind.LSN:
        return last
    if target.position // size > last:
        raise RestoreRefused(
            f"the target ({target}) lies behind the end of the archive, in which timeline {path.timeline} ends with"
            f" segment {path.segment_names(last, last, size)[0]}"
        )
    return target.position // size
