"""The canary: a row that is written after the base backup, so that finding it proves that the log was replayed."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import psycopg

from depot_ops.drills.record import Canary
from depot_ops.evidence import Finding, Status
from depot_ops.postgres.wal.archive import WalArchive
from depot_ops.postgres.wal.names import parse_lsn, parse_wal_name, segment_name
from depot_ops.postgres.wal.progress import check_freshness
from depot_ops.postgres.wal.stream import flushed_lsn

RESTORED = "canary_restored"
FORCED_ARRIVAL_SECONDS = 60.0
POLL_SECONDS = 0.05

_WRITE = "INSERT INTO ops_canaries DEFAULT VALUES RETURNING id, written_at"
# What is flushed has the commit in it. The position of the next insertion can lie behind a switch, in a segment that
# nothing is ever written to.
_POSITION = """
SELECT pg_current_wal_flush_lsn()::text, left(pg_walfile_name(pg_current_wal_insert_lsn()), 8),
       pg_size_bytes(current_setting('wal_segment_size'))
"""


class CanaryLost(Exception):
    """The canary did not reach the archive; the message says what was seen."""


def plant(
    depot: psycopg.Connection[Any],
    replication_url: str,
    archive: WalArchive,
    patience_seconds: float,
    *,
    streamed: bool = False,
) -> tuple[Canary, float]:
    """Write a canary and wait until its commit cannot be lost; in how many seconds it was so. Raises CanaryLost.

    That is when the archive has it, or the receiver of a stream. For `patience_seconds` it is left to arrive by itself,
    as everybody's commits do. After that the server is told to finish the segment: the drill goes on, and the seconds
    say that the log comes too late.
    """
    depot.execute("SET synchronous_commit = local")
    identity, written_at = _row(depot, _WRITE)
    committed = time.monotonic()
    position, timeline, size = _row(depot, _POSITION)
    segment = parse_wal_name(segment_name(int(timeline, 16), (parse_lsn(position) - 1) // size, size))
    assert segment is not None
    with ExitStack() as stack:
        ways = [lambda: archive.record(segment) is not None]
        if streamed:
            primary = stack.enter_context(psycopg.connect(replication_url, autocommit=True))
            ways.append(lambda: (flushed_lsn(primary) or 0) >= parse_lsn(position))
        forced = not _arrives(ways, patience_seconds)
    if forced:
        finding = check_freshness(replication_url, archive, arrival_seconds=FORCED_ARRIVAL_SECONDS)
        if finding.status is not Status.HEALTHY or not _arrives(ways[:1], FORCED_ARRIVAL_SECONDS):
            raise CanaryLost(f"the canary in {segment.name} did not reach the archive: {finding.detail}")
    seconds = round(time.monotonic() - committed, 3)
    return Canary(id=identity, written_at=written_at, lsn=position, segment=segment.name, forced=forced), seconds


def look_for(canary: Canary, depot: psycopg.Connection[Any]) -> Finding:
    """Does the restored cluster, which takes writes, have the row?"""
    in_recovery, read_only = _row(depot, "SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'")
    found = depot.execute("SELECT written_at FROM ops_canaries WHERE id = %s", [canary.id]).fetchone()
    problem = ""
    if in_recovery or read_only:
        problem = "the restored server is still in recovery: it takes no writes"
    elif found is None:
        problem = (
            f"the row {canary.id} of {canary.written_at.isoformat()} is not there: the log was not replayed so far"
        )
    elif found[0] != canary.written_at:
        problem = f"the row {canary.id} says {found[0].isoformat()}, and was written {canary.written_at.isoformat()}"
    status = Status.UNHEALTHY if problem else Status.HEALTHY
    return Finding(
        check=RESTORED, status=status, detail=problem or f"the row of {canary.written_at.isoformat()} is there"
    )


def _arrives(ways: Sequence[Callable[[], bool]], patience_seconds: float) -> bool:
    deadline = time.monotonic() + patience_seconds
    while not any(arrived() for arrived in ways):
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _row(depot: psycopg.Connection[Any], query: str) -> tuple[Any, ...]:
    row: tuple[Any, ...] | None = depot.execute(query.encode()).fetchone()
    assert row is not None
    return row
