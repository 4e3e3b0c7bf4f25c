"""The log as pg_receivewal writes it: the commits of the last seconds, which no archive has yet.

The newest file is `<segment>.partial`, of a segment's size and filled from its start. It has no hash: what a recovery
took from it is judged by where the recovery ended and how the bytes go on there.
"""

import struct
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import psycopg

from depot_ops.evidence import Figures, Finding, Status
from depot_ops.postgres.wal.archive import ArchiveError, WalArchive
from depot_ops.postgres.wal.content import check_segment, check_start
from depot_ops.postgres.wal.names import WalName, format_lsn, parse_lsn, parse_wal_name
from depot_ops.postgres.wal.timelines import TimelinePath

STREAM = "wal_stream"
SLOT = "depot_stream"
PARTIAL_SUFFIX = ".partial"
ARRIVAL_SECONDS = 10.0
CONNECT_TIMEOUT_SECONDS = 10
POLL_SECONDS = 0.02
_LONG_HEADER_BYTES = 40
_SHORT_HEADER_BYTES = 24
_REMAINING_LENGTH_OFFSET = 16
_LENGTH = struct.Struct("=I")

_MARK = "SELECT lsn::text, pg_walfile_name(lsn) FROM pg_logical_emit_message(true, 'depot-ops', 'wal_stream') AS lsn"
_SENDER = """
SELECT s.wal_status, coalesce(r.state, 'none'), coalesce(r.flush_lsn, s.restart_lsn, '0/0')::text,
       coalesce(extract(epoch FROM r.flush_lag), 0)::float8, pg_current_wal_flush_lsn()::text
FROM pg_replication_slots s LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid WHERE s.slot_name = %s
"""


@dataclass(frozen=True, slots=True)
class Streamed:
    """What a recovery gets from the stream beyond the archive's end."""

    names: tuple[str, ...]
    start: int
    """The position at which the last of them begins."""
    content: bytes
    page_size_bytes: int

    @property
    def until(self) -> int:
        """The position behind the last byte that was received, but for zeros."""
        return self.start + _used_bytes(self.content)


def stage_streamed(
    stream: Path, staged: Path, path: TimelinePath, first: int, size: int, archive: WalArchive
) -> Streamed | None:
    """Put the segments from number `first` on into `staged`, the last as far as it was received.

    None when there is nothing behind what the archive had. Raises BadWalFile, ArchiveError, OSError.
    """
    names: list[str] = []
    last: tuple[int, bytes, int] | None = None
    stream.stat()  # a missing directory would look like an empty one
    for number in count(first):
        name = parse_wal_name(path.segment_names(number, number, size)[0])
        assert name is not None
        content, is_whole = _received(stream, name, archive)
        if not _used_bytes(content):
            break
        check = check_segment if is_whole else check_start
        header = check(name, content, archive.system_identifier)
        (staged / name.name).write_bytes(content)
        names.append(name.name)
        last = number * size, content, header.page_size_bytes
        if not is_whole:
            break
    return None if last is None else Streamed(tuple(names), *last)


def _received(stream: Path, name: WalName, archive: WalArchive) -> tuple[bytes, bool]:
    """What there is of a segment, and whether it is whole.

    While we look, a receiver finishes it, which renames it, and hands it over: it is looked for in that order.
    """
    try:
        return _read_growing(stream / (name.name + PARTIAL_SUFFIX)), False
    except FileNotFoundError:
        pass
    try:
        return (stream / name.name).read_bytes(), True
    except FileNotFoundError:
        return (archive.fetch(name), True) if archive.record(name) else (b"", False)


def _read_growing(path: Path) -> bytes:
    """A file that is being written from its start on. One look may see a page and miss the one before it."""
    with path.open("rb") as file:
        seen_bytes = _used_bytes(file.read())
        file.seek(0)
        content = file.read()
    return content[:seen_bytes].ljust(len(content), b"\0")


def stops_short(streamed: Streamed, ended: int) -> bool:
    """Does the stream go on behind `ended`, where a recovery found no further record?

    What was received last may be the beginning of a record. Bytes behind that record show that it was damaged.
    """
    content, page = streamed.content, streamed.page_size_bytes
    if ended < streamed.start:  # in a record that began in the segment before
        position = _LONG_HEADER_BYTES
        (length,) = _LENGTH.unpack_from(content, _REMAINING_LENGTH_OFFSET)
    else:
        position = ended - streamed.start
        if position % page == 0:
            position += _SHORT_HEADER_BYTES if position else _LONG_HEADER_BYTES
        (length,) = _LENGTH.unpack_from(content.ljust(position + _LENGTH.size, b"\0"), position)
    return _used_bytes(content) > _end_of_record(position, length, page)


def _end_of_record(position: int, length: int, page: int) -> int:
    while length > (room := page - position % page):
        position, length = position + room + _SHORT_HEADER_BYTES, length - room
    return position + length


def _used_bytes(content: bytes) -> int:
    return len(content.rstrip(b"\0"))


def flushed_lsn(connection: psycopg.Connection[Any], slot: str = SLOT) -> int | None:
    """Up to where a receiver has the log on its disk, by what it told the primary; None when there is no slot."""
    row = connection.execute(_SENDER, (slot,)).fetchone()
    return None if row is None else parse_lsn(row[2])


def check_stream(
    url: str, stream: Path, archive: WalArchive, *, slot: str = SLOT, arrival_seconds: float = ARRIVAL_SECONDS
) -> Finding:
    """Write a mark at the primary, and wait until the stream has flushed it and its file holds it."""
    started = time.monotonic()
    try:
        with psycopg.connect(url, autocommit=True, connect_timeout=CONNECT_TIMEOUT_SECONDS) as connection:
            if (mark := connection.execute(_MARK).fetchone()) is None:
                return Finding(check=STREAM, status=Status.UNKNOWN, detail="the server wrote no mark")
            while True:
                row = connection.execute(_SENDER, (slot,)).fetchone()
                late = time.monotonic() - started > arrival_seconds
                if row is None or late or parse_lsn(row[2]) >= parse_lsn(mark[0]):
                    break
                time.sleep(POLL_SECONDS)
    except psycopg.Error as error:
        detail = f"the primary could not be asked: {str(error).strip()}"
        return Finding(check=STREAM, status=Status.UNKNOWN, detail=detail)
    if row is None:
        detail = f"the primary has no slot {slot}: start `depot-ops wal receive`"
        return Finding(check=STREAM, status=Status.UNHEALTHY, detail=detail)
    wal_status, state, flushed, lag_seconds, current = row
    figures: Figures = {
        "lag_bytes": max(0, parse_lsn(current) - parse_lsn(flushed)),
        "lag_seconds": round(lag_seconds, 6),
        "waited_seconds": round(time.monotonic() - started, 3),
        "flushed_lsn": flushed,
    }
    if parse_lsn(flushed) < parse_lsn(mark[0]):
        detail = (
            f"{mark[0]} was not received within {arrival_seconds:g} s: stream {state}, slot {slot} {wal_status}, got as"
            f" far as {flushed}. Look at the output of `depot-ops wal receive`"
        )
        return Finding(check=STREAM, status=Status.UNHEALTHY, detail=detail, figures=figures)
    return _on_disk(stream, archive, mark[0], mark[1], figures)


def _on_disk(stream: Path, archive: WalArchive, position: str, segment: str, figures: Figures) -> Finding:
    """The receiver says that it has it: so does the directory in which a recovery will look?"""
    name = parse_wal_name(segment)
    assert name is not None
    try:
        partial = stream / (segment + PARTIAL_SUFFIX)
        if partial.exists():
            content = partial.read_bytes()
            offset = parse_lsn(position) % len(content) if content else 1
            has_it = _used_bytes(content) + 8 >= offset  # records are aligned to 8 bytes
        else:
            has_it = (stream / segment).exists() or archive.record(name) is not None
    except (OSError, ArchiveError) as error:
        return Finding(check=STREAM, status=Status.UNKNOWN, detail=str(error), figures=figures)
    if not has_it:
        detail = f"the stream is past {position}, but {stream} does not have it: does the receiver write elsewhere?"
        return Finding(check=STREAM, status=Status.UNHEALTHY, detail=detail, figures=figures)
    detail = f"{position} was on its disk after {figures['waited_seconds']} s"
    return Finding(check=STREAM, status=Status.HEALTHY, detail=detail, figures=figures)


def refused_end(streamed: Streamed, ended: str) -> str:
    """What to say of a stream that `stops_short`."""
    return (
        f"the recovery ended at {ended}, and the streamed log goes on to {format_lsn(streamed.until)} behind a damaged"
        f" record in {streamed.names[-1]}: restore without --stream to end with the archive"
    )
