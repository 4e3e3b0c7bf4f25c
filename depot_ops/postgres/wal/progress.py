"""Does the log arrive in the archive? Asked by progress: an idle server is not stale, and a silent failure is found."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from depot_ops.evidence import Figures, Finding, Status
from depot_ops.postgres.wal.archive import ArchiveDamaged, ArchiveError, WalArchive, open_archive
from depot_ops.postgres.wal.names import parse_lsn, parse_wal_name, segment_name

FRESHNESS = "wal_freshness"
BACKLOG = "archiver_backlog"
SPOOL = "spool_backlog"
ARRIVAL_SECONDS = 60.0
MAX_WAITING_FILES = 8
MAX_WAITING_SECONDS = 300.0
CONNECT_TIMEOUT_SECONDS = 10
POLL_SECONDS = 0.1

_SWITCH = """
SELECT pg_switch_wal()::text, left(pg_walfile_name(pg_current_wal_insert_lsn()), 8),
       pg_size_bytes(current_setting('wal_segment_size'))
"""
_BACKLOG = """
SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(modification)), 0)::float8,
       current_setting('archive_mode'), coalesce(nullif(current_setting('archive_library'), ''),
                                                 nullif(current_setting('archive_command'), '(disabled)'), '')
FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'
"""


def archive_of(url: str, root: Path, system_identifier: int | None = None) -> WalArchive:
    """The archive of the server at `url`, also where nothing has arrived in it yet. Raises ArchiveError.

    Of a server that does not answer it is the only one that is there: the checks that ask the server say the rest.
    """
    if system_identifier is None:
        try:
            with _connected(url) as connection:
                row = connection.execute("SELECT system_identifier FROM pg_control_system()").fetchone()
        except psycopg.Error:
            row = None
        system_identifier = row[0] if row else None
    return WalArchive(root, system_identifier) if system_identifier is not None else open_archive(root)


def check_freshness(
    url: str,
    archive: WalArchive,
    *,
    arrival_seconds: float = ARRIVAL_SECONDS,
    collect: Callable[[], object] | None = None,
) -> Finding:
    """Finish the segment that the server writes, if anything is in it, and wait until the archive has it.

    `collect` is called while waiting, where no collector runs. Needs a role that may call pg_switch_wal().
    """
    try:
        with _connected(url) as connection:
            if _in_recovery(connection):
                return _finding(FRESHNESS, Status.UNKNOWN, "this server is a standby: ask the primary")
            # The position after the switch; of a server without new work, the start of the segment it waits in.
            row = connection.execute(_SWITCH).fetchone()
            assert row is not None
            position, timeline, size = row
    except psycopg.Error as error:
        return _finding(FRESHNESS, Status.UNKNOWN, f"the server could not be asked: {str(error).strip()}")
    name = parse_wal_name(segment_name(int(timeline, 16), (parse_lsn(position) - 1) // size, size))
    assert name is not None
    started = time.monotonic()
    try:
        while (arrived := archive.record(name)) is None and time.monotonic() - started < arrival_seconds:
            if collect:
                collect()
            time.sleep(POLL_SECONDS)
    except ArchiveDamaged as error:
        return _finding(FRESHNESS, Status.UNHEALTHY, str(error))
    except ArchiveError as error:
        return _finding(FRESHNESS, Status.UNKNOWN, str(error))
    waited = round(time.monotonic() - started, 3)
    figures: Figures = {"file": name.name, "waited_seconds": waited}
    if arrived is None:
        detail = f"it did not arrive within {arrival_seconds:g} s. Look at archiver_backlog and at the collector"
        return _finding(FRESHNESS, Status.UNHEALTHY, detail, figures)
    return _finding(FRESHNESS, Status.HEALTHY, f"it is in the archive, {arrived.collected_at}", figures)


def check_backlog(url: str, *, max_files: int = MAX_WAITING_FILES, max_seconds: float = MAX_WAITING_SECONDS) -> Finding:
    """How many finished segments the server has not handed over, and since when.

    The server's own count of failures misses whole classes of them: codes above 125, signals, an empty command.
    """
    try:
        with _connected(url) as connection:
            row = connection.execute(_BACKLOG).fetchone()
            assert row is not None
    except psycopg.Error as error:
        return _finding(BACKLOG, Status.UNKNOWN, f"the server could not be asked: {str(error).strip()}")
    waiting, oldest_seconds, mode, means = row
    figures: Figures = {"waiting_files": waiting, "oldest_seconds": round(oldest_seconds, 1)}
    if mode == "off":
        return _finding(BACKLOG, Status.UNHEALTHY, "archive_mode is off: nothing is archived", figures)
    if not means:
        detail = f"archive_library and archive_command are empty: {waiting} files wait, and more will"
        return _finding(BACKLOG, Status.UNHEALTHY, detail, figures)
    return _judged(BACKLOG, figures, max_files, max_seconds, "the server cannot hand them over: see its log")


def check_spool(
    spool: Path, *, max_files: int = MAX_WAITING_FILES, max_seconds: float = MAX_WAITING_SECONDS
) -> Finding:
    """How many files wait for the collector, and since when."""
    try:
        times = [path.stat().st_mtime for path in spool.iterdir() if parse_wal_name(path.name)]
    except OSError as error:
        return _finding(SPOOL, Status.UNKNOWN, f"{spool} could not be read: {error}")
    oldest = max(0.0, datetime.now(UTC).timestamp() - min(times)) if times else 0.0
    figures: Figures = {"waiting_files": len(times), "oldest_seconds": round(oldest, 1)}
    return _judged(SPOOL, figures, max_files, max_seconds, "no collector takes them: run `depot-ops wal collect`")


def _judged(check: str, figures: Figures, max_files: int, max_seconds: float, advice: str) -> Finding:
    waiting, oldest = figures["waiting_files"], figures["oldest_seconds"]
    seen = f"{waiting} files wait, the oldest for {oldest} s"
    if float(waiting) > max_files or float(oldest) > max_seconds:
        return _finding(check, Status.UNHEALTHY, f"{seen}; {advice}", figures)
    return _finding(check, Status.HEALTHY, seen, figures)


def _connected(url: str) -> psycopg.Connection[tuple[Any, ...]]:
    return psycopg.connect(url, autocommit=True, connect_timeout=CONNECT_TIMEOUT_SECONDS)


def _in_recovery(connection: psycopg.Connection[tuple[Any, ...]]) -> bool:
    row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
    return row is None or bool(row[0])


def _finding(check: str, status: Status, detail: str, figures: Figures | None = None) -> Finding:
    return Finding(check=check, status=status, detail=detail, figures=figures or {})
