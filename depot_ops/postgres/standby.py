"""How far a standby is behind, in bytes. What is not known is unknown: a broken stream looks like no lag at all."""

import time
from dataclasses import dataclass
from typing import Any

import psycopg

from depot_ops.evidence import Figures, Finding, Status
from depot_ops.postgres.wal.archive import ArchiveDamaged, ArchiveError, WalArchive
from depot_ops.postgres.wal.names import format_lsn, parse_lsn, parse_wal_name, segment_name
from depot_ops.postgres.wal.progress import ARRIVAL_SECONDS, FRESHNESS

HEALTH = "replica_health"
MAX_BEHIND_BYTES = 64 << 20
# The primary sends a sign of life at the latest after half of wal_sender_timeout, which is 60 s.
MAX_SILENCE_SECONDS = 60.0
CONNECT_TIMEOUT_SECONDS = 10
POLL_SECONDS = 0.1

_STANDBY = """
SELECT pg_is_in_recovery(), (SELECT system_identifier FROM pg_control_system()),
       coalesce(pg_last_wal_replay_lsn()::text, '0/0'), r.latest_end_lsn::text,
       r.flushed_lsn::text, r.received_tli, pg_size_bytes(current_setting('wal_segment_size')),
       coalesce(r.status, 'none'), extract(epoch FROM clock_timestamp() - r.last_msg_receipt_time)::float8
FROM (VALUES (1)) AS one LEFT JOIN pg_stat_wal_receiver r ON true
"""
_PRIMARY = "SELECT system_identifier, pg_current_wal_lsn()::text FROM pg_control_system() WHERE NOT pg_is_in_recovery()"


class StandbyUnknown(Exception):
    """Nobody knows how far the standby is; the message says why."""


@dataclass(frozen=True, slots=True)
class StandbyState:
    """What a standby says of itself."""

    in_recovery: bool
    system_identifier: int
    replayed_lsn: str
    primary_lsn: str | None
    """Where the primary was when it last told the standby."""
    flushed_lsn: str | None
    timeline: int | None
    segment_size_bytes: int
    stream: str
    silent_seconds: float | None

    @property
    def streams(self) -> bool:
        is_recent = self.silent_seconds is not None and self.silent_seconds <= MAX_SILENCE_SECONDS
        return self.stream == "streaming" and is_recent and self.primary_lsn is not None


def ask_standby(url: str) -> StandbyState:
    """What the server at `url` says of itself; the role needs pg_monitor. Raises StandbyUnknown."""
    row = _row(url, _STANDBY, "the standby")
    assert row is not None
    return StandbyState(*row)


def primary_position(url: str) -> tuple[int, str]:
    """The primary's system identifier and how far it has written. Raises StandbyUnknown."""
    row = _row(url, _PRIMARY, "the primary")
    if row is None:
        raise StandbyUnknown("what is named as the primary is a standby itself: check its address")
    return row[0], row[1]


def _row(url: str, query: str, who: str) -> tuple[Any, ...] | None:
    try:
        with psycopg.connect(url, autocommit=True, connect_timeout=CONNECT_TIMEOUT_SECONDS) as connection:
            return connection.execute(query).fetchone()
    except psycopg.Error as error:
        raise StandbyUnknown(f"{who} could not be asked: {str(error).strip()}") from error


def check_standby(
    replica_url: str, primary_url: str | None = None, *, max_behind_bytes: int = MAX_BEHIND_BYTES
) -> Finding:
    """Does the standby stream, and how many bytes is what it has replayed behind the primary?

    Without `primary_url` the primary's position is the one that it last told the standby.
    """
    try:
        # The primary first: what it writes meanwhile counts for the standby, not against it.
        primary = primary_position(primary_url) if primary_url else None
        standby = ask_standby(replica_url)
    except StandbyUnknown as error:
        return _finding(HEALTH, Status.UNKNOWN, str(error))
    if not standby.in_recovery:
        detail = "it takes writes: it is no standby, or it was promoted and two servers are writable"
        return _finding(HEALTH, Status.UNHEALTHY, detail)
    if primary and primary[0] != standby.system_identifier:
        detail = f"it is of the cluster {standby.system_identifier}, the primary of {primary[0]}: rebuild it"
        return _finding(HEALTH, Status.UNHEALTHY, detail)
    figures: Figures = {"replayed_lsn": standby.replayed_lsn, "stream": standby.stream}
    if not standby.streams or standby.primary_lsn is None:
        detail = f"no primary streams to it (receiver: {standby.stream}): nobody knows how far it is behind"
        return _finding(HEALTH, Status.UNKNOWN, detail, figures)
    end = parse_lsn(primary[1] if primary else standby.primary_lsn)
    behind = max(0, end - parse_lsn(standby.replayed_lsn))
    figures |= {"primary_lsn": format_lsn(end), "behind_bytes": behind}
    status = Status.UNHEALTHY if behind > max_behind_bytes else Status.HEALTHY
    detail = f"it streams and has replayed to {standby.replayed_lsn}, {behind:,} bytes behind"
    return _finding(HEALTH, status, detail, figures)


def check_freshness_by_standby(
    replica_url: str, archive: WalArchive, *, arrival_seconds: float = ARRIVAL_SECONDS
) -> Finding:
    """Has the archive the last segment that the primary finished, which its standby knows? Waits for it to arrive."""
    try:
        standby = ask_standby(replica_url)
    except StandbyUnknown as error:
        return _finding(FRESHNESS, Status.UNKNOWN, str(error))
    if not standby.in_recovery or not standby.streams or not standby.flushed_lsn or not standby.timeline:
        detail = f"no primary streams to the standby (receiver: {standby.stream}): nobody knows what it has finished"
        return _finding(FRESHNESS, Status.UNKNOWN, detail)
    size = standby.segment_size_bytes
    name = parse_wal_name(segment_name(standby.timeline, parse_lsn(standby.flushed_lsn) // size - 1, size))
    assert name is not None
    deadline = time.monotonic() + arrival_seconds
    try:
        while (arrived := archive.record(name)) is None and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
    except ArchiveDamaged as error:
        return _finding(FRESHNESS, Status.UNHEALTHY, str(error))
    except ArchiveError as error:
        return _finding(FRESHNESS, Status.UNKNOWN, str(error))
    figures: Figures = {"file": name.name}
    if arrived is None:
        detail = f"it is finished and did not arrive within {arrival_seconds:g} s. Look at the collector"
        return _finding(FRESHNESS, Status.UNHEALTHY, detail, figures)
    return _finding(FRESHNESS, Status.HEALTHY, f"the last finished one, in the archive {arrived.collected_at}", figures)


def _finding(check: str, status: Status, detail: str, figures: Figures | None = None) -> Finding:
    return Finding(check=check, status=status, detail=detail, figures=figures or {})
