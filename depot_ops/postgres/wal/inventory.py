"""Is the archive whole? Which segment is missing, and which is not what was stored?"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from depot_ops.evidence import Figures, Finding, Status
from depot_ops.postgres.wal.archive import ArchiveError, WalArchive
from depot_ops.postgres.wal.content import BadWalFile, Switch
from depot_ops.postgres.wal.names import DEFAULT_SEGMENT_SIZE_BYTES, WalKind, WalName, segment_name
from depot_ops.postgres.wal.timelines import UnknownTimeline, path_to

CONTINUITY = "wal_continuity"
INTACT = "wal_intact"
NAMED_MISSING = 10


@dataclass(frozen=True, slots=True)
class TimelineStock:
    """What the archive has of one timeline."""

    timeline: int
    segments: int
    first: str
    last: str
    missing: tuple[str, ...]


def take_stock(archive: WalArchive, oldest_needed: str | None = None) -> list[TimelineStock]:
    """Each timeline's segments, and those that should lie between them; `oldest_needed` is the oldest backup's start.

    A timeline has to reach from where it branched off to where the next one did; of the segment in which it was left
    the next one has the copy that counts. Raises ArchiveError, BadWalFile, UnknownTimeline.
    """
    names = archive.names()
    size = segment_size(archive, names)
    numbers: dict[int, set[int]] = defaultdict(set)
    for name in names:
        if name.is_whole_segment and archive.file_path(name).is_file():
            numbers[name.timeline].add(name.segment_number(size))
    begins, ends = _bounds(archive, names, size)
    oldest = _number(oldest_needed, size)
    stocks = []
    for timeline in sorted(numbers.keys() | ends.keys() | begins.keys()):
        have = numbers[timeline]
        expected = _expected(have, begins.get(timeline), ends.get(timeline), oldest)
        missing = tuple(segment_name(timeline, number, size) for number in expected if number not in have)
        if have or missing:
            first, last = (segment_name(timeline, n, size) for n in (min(have or expected), max(have or expected)))
            stocks.append(TimelineStock(timeline, len(have), first, last, missing))
    return stocks


def _expected(have: set[int], begin: int | None, end: int | None, oldest: int | None) -> range:
    # What was there before the oldest backup may have expired, and nothing of a timeline lies before where it began.
    first = min(have, default=end or 0)
    origin = max((number for number in (begin, oldest) if number is not None), default=None)
    if origin is not None and (have or oldest is not None):
        first = min(first, origin)
    return range(first, max(max(have, default=-1) + 1, end or 0))


def _bounds(archive: WalArchive, names: list[WalName], size: int) -> tuple[dict[int, int], dict[int, int]]:
    """In which segment each timeline began, and before which segment it was left, where a history says so."""
    begins: dict[int, int] = {}
    ends: dict[int, int] = {}
    for name in names:
        if name.kind is not WalKind.HISTORY:
            continue
        last: Switch = path_to(archive, name.timeline).switches[-1]
        begins[name.timeline] = last.position // size
        ends[last.timeline] = max(ends.get(last.timeline, 0), last.position // size)
    return begins, ends


def check_continuity(archive: WalArchive, oldest_needed: str | None = None) -> Finding:
    """Does the archive have every segment between the first and the last of each timeline?"""
    try:
        stocks = take_stock(archive, oldest_needed)
    except (UnknownTimeline, BadWalFile) as error:
        return Finding(check=CONTINUITY, status=Status.UNHEALTHY, detail=str(error))
    except ArchiveError as error:
        return Finding(check=CONTINUITY, status=Status.UNKNOWN, detail=str(error))
    missing = [name for stock in stocks for name in stock.missing]
    figures: Figures = {
        "segments": sum(stock.segments for stock in stocks),
        "timelines": len(stocks),
        "missing_segments": len(missing),
    }
    if not stocks:
        detail = f"there is no segment in {archive.directory}: is archiving on, and the collector running?"
        return Finding(check=CONTINUITY, status=Status.UNHEALTHY, detail=detail, figures=figures)
    if missing:
        more = f" and {len(missing) - NAMED_MISSING} more" if len(missing) > NAMED_MISSING else ""
        detail = (
            f"missing: {', '.join(missing[:NAMED_MISSING])}{more}. No recovery gets past it: take a base backup now"
        )
        return Finding(check=CONTINUITY, status=Status.UNHEALTHY, detail=detail, figures=figures)
    ranges = "; ".join(f"{stock.first} to {stock.last}" for stock in stocks)
    detail = f"{figures['segments']} segments without a gap: {ranges}"
    return Finding(check=CONTINUITY, status=Status.HEALTHY, detail=detail, figures=figures)


def check_intact(archive: WalArchive, *, deep: bool = False, chosen: Callable[[str], bool] = lambda _: True) -> Finding:
    """Is every `chosen` file there with its record, and of the stored size? `deep` reads and hashes every one."""
    problems: list[str] = []
    files = stored_bytes = 0
    try:
        for name in archive.names():
            if not chosen(name.name):
                continue
            files += 1
            problem, size_bytes = _inspect(archive, name, deep)
            stored_bytes += size_bytes
            problems += [problem] if problem else []
    except ArchiveError as error:
        return Finding(check=INTACT, status=Status.UNKNOWN, detail=str(error))
    figures: Figures = {"files": files, "stored_bytes": stored_bytes, "damaged_files": len(problems)}
    if problems:
        detail = "; ".join(problems[:NAMED_MISSING])
        return Finding(check=INTACT, status=Status.UNHEALTHY, detail=detail, figures=figures)
    how = "read and hashed" if deep else "there with their size"
    return Finding(check=INTACT, status=Status.HEALTHY, detail=f"all {files} files are {how}", figures=figures)


def _inspect(archive: WalArchive, name: WalName, deep: bool) -> tuple[str | None, int]:
    path = archive.file_path(name)
    try:
        size_bytes = path.stat().st_size
    except FileNotFoundError:
        return f"{path} is gone; its record is still there", 0
    try:
        record = archive.record(name)
        if deep:
            archive.fetch(name)
    except ArchiveError as error:
        return str(error), size_bytes
    if record is None:
        return f"{path} has no record: its writer was killed, store it again", size_bytes
    if record.stored_size_bytes != size_bytes:
        return f"{path} has {size_bytes} bytes and was stored with {record.stored_size_bytes}", size_bytes
    return None, size_bytes


def segment_size(archive: WalArchive, names: list[WalName]) -> int:
    """The size of this cluster's segments, which its first record tells."""
    for name in names:
        if name.is_whole_segment and (record := archive.record(name)):
            return record.size_bytes
    return DEFAULT_SEGMENT_SIZE_BYTES


def _number(name: str | None, size: int) -> int | None:
    return None if name is None else WalName(name, WalKind.SEGMENT, int(name[:8], 16)).segment_number(size)
