"""How one standby is: in bytes, and in seconds by heartbeats that are written through its primary.

An idle primary is not lag, so the age of the last commit is never asked. A broken stream is never zero: without a
stream, or without a primary that answers, the status says so, and a figure that nobody knows is null.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from depot_ops.postgres.standby import MAX_BEHIND_BYTES, StandbyState, StandbyUnknown, ask_standby
from depot_ops.postgres.wal.names import parse_lsn

LAG_THRESHOLD_SECONDS = 120.0
ARRIVAL_SECONDS = 5.0
CONNECT_TIMEOUT_SECONDS = 10
STATEMENT_TIMEOUT_MILLISECONDS = 10_000
POLL_SECONDS = 0.05
KEPT_BEATS = 10_000

# Whoever asks first makes it; two at once would each find it missing.
_TABLE = """
SELECT pg_advisory_lock(hashtext('depot_ops.heartbeats'));
CREATE SCHEMA IF NOT EXISTS depot_ops;
CREATE TABLE IF NOT EXISTS depot_ops.heartbeats (
    beat    bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    beat_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
GRANT USAGE ON SCHEMA depot_ops TO PUBLIC;
GRANT SELECT ON depot_ops.heartbeats TO PUBLIC;
SELECT pg_advisory_unlock(hashtext('depot_ops.heartbeats'));
"""
_BEAT = """
WITH kept AS (DELETE FROM depot_ops.heartbeats WHERE beat <= (SELECT max(beat) - %s FROM depot_ops.heartbeats))
INSERT INTO depot_ops.heartbeats DEFAULT VALUES RETURNING beat
"""
_POSITION = """
SELECT pg_current_wal_lsn()::text, (SELECT system_identifier FROM pg_control_system()),
       ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int,
       (SELECT CASE WHEN active THEN 'active' ELSE 'inactive' END || ', ' || coalesce(wal_status, 'unreserved')
        FROM pg_replication_slots WHERE slot_name = %s)
"""
_ARRIVED = "SELECT coalesce(max(beat), 0) FROM depot_ops.heartbeats"
# By the primary's clock on both sides.
_AGES = """
SELECT extract(epoch FROM clock_timestamp() - max(beat_at) FILTER (WHERE beat <= %(arrived)s))::float8,
       extract(epoch FROM clock_timestamp() - min(beat_at) FILTER (WHERE beat > %(arrived)s))::float8
FROM depot_ops.heartbeats
"""
_STANDBY_FACTS = """
SELECT current_setting('primary_slot_name'), (SELECT timeline_id FROM pg_control_checkpoint()),
       pg_last_wal_receive_lsn()::text,
       (SELECT sender_host || ':' || sender_port FROM pg_stat_wal_receiver WHERE status = 'streaming')
"""


class ReplicaStatus(StrEnum):
    """`lagging` streams, but is too far behind; `disconnected` does not stream; `unknown` could not be looked at."""

    HEALTHY = "healthy"
    LAGGING = "lagging"
    DISCONNECTED = "disconnected"
    UNKNOWN = "unknown"

    @property
    def exit_code(self) -> int:
        """As everywhere 0 is healthy, 1 unhealthy and 3 unknown; 4 tells a broken stream from a slow one."""
        return {"healthy": 0, "lagging": 1, "unknown": 3, "disconnected": 4}[self]


class ReplicaHealth(BaseModel):
    """One answer; what is not known is null."""

    model_config = ConfigDict(frozen=True)

    schema_version: Literal[1] = 1
    checked_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    replica: str
    status: ReplicaStatus
    reason: str
    lag_bytes: int | None = None
    lag_seconds: float | None = None
    """Since the oldest heartbeat that has not arrived was written; when all have, what the last one took."""
    heartbeat_age_seconds: float | None = None
    """Of the newest heartbeat that has arrived."""
    primary_lsn: str | None = None
    received_lsn: str | None = None
    replayed_lsn: str | None = None
    timeline: int | None = None
    slot: str | None = None
    """Its slot at the primary. One that another standby feeds has it there, and none at the primary."""
    receiver: str | None = None
    sender: str | None = None
    """From which server it streams."""
    silent_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What is still healthy."""

    lag_seconds: float = LAG_THRESHOLD_SECONDS
    lag_bytes: int = MAX_BEHIND_BYTES
    arrival_seconds: float = ARRIVAL_SECONDS
    """How long a heartbeat is waited for; beyond, its age counts as lag, which may still be within the limit."""


@dataclass(frozen=True, slots=True)
class _Primary:
    lsn: str
    system_identifier: int
    timeline: int
    slot: str | None


@dataclass(frozen=True, slots=True)
class _Heartbeats:
    lag_seconds: float | None
    age_seconds: float | None
    have_arrived: bool
    """The newest, which was written just now, too."""


def check_replica(url: str, primary_url: str | None = None, limits: Limits = Limits()) -> ReplicaHealth:
    """How the standby at `url` is. Never raises: what cannot be found out is a reason.

    The role at `url` needs pg_monitor, the one at `primary_url` to make a schema once. Without `primary_url` bytes
    are counted to where the primary last told the standby it was, and seconds are not known.
    """
    try:
        state = ask_standby(url)
        slot_name, timeline, received, sender = _standby_facts(url)
    except (StandbyUnknown, psycopg.Error) as error:
        return ReplicaHealth(replica=place_of(url), status=ReplicaStatus.UNKNOWN, reason=str(error).strip())
    seen: dict[str, Any] = {
        "replica": place_of(url),
        "replayed_lsn": state.replayed_lsn,
        "received_lsn": received,
        "timeline": state.timeline or timeline,
        "receiver": state.stream,
        "sender": sender,
        "silent_seconds": state.silent_seconds and round(state.silent_seconds, 3),
    }
    if primary_url is None:
        return _told(state, limits, seen)
    try:
        primary, beats, state = _compared(url, primary_url, slot_name, state, limits)
    except (psycopg.Error, StandbyUnknown) as error:
        reason = f"its lag is not known: the primary could not be asked: {str(error).strip()}"
        status = ReplicaStatus.UNKNOWN if state.streams else ReplicaStatus.DISCONNECTED
        return ReplicaHealth(status=status, reason=reason, **seen)
    seen |= {
        "replayed_lsn": state.replayed_lsn,
        "primary_lsn": primary.lsn,
        "slot": primary.slot,
        "lag_seconds": beats.lag_seconds and round(beats.lag_seconds, 3),
        "heartbeat_age_seconds": beats.age_seconds and round(beats.age_seconds, 3),
    }
    if primary.system_identifier != state.system_identifier:
        reason = f"it is of the cluster {state.system_identifier}, its primary of {primary.system_identifier}: rebuild"
        return ReplicaHealth(status=ReplicaStatus.DISCONNECTED, reason=reason, **seen)
    if state.streams and (why := _follows_another(state, primary, slot_name, beats)):
        return ReplicaHealth(status=ReplicaStatus.DISCONNECTED, reason=why, **seen)
    return _judged(state, primary.lsn, limits, seen)


def _follows_another(state: StandbyState, primary: _Primary, slot_name: str, beats: _Heartbeats) -> str | None:
    """It streams, and not what this primary writes now, from it or by way of another standby."""
    if state.timeline != primary.timeline:
        return f"it follows the timeline {state.timeline}, its primary is on {primary.timeline}: rejoin or rebuild it"
    if slot_name and not (primary.slot or "").startswith("active") and not beats.have_arrived:
        return (
            f"its slot {slot_name} at the primary is {primary.slot or 'missing'}: it streams from another server, and"
            " what was written here just now has not come that way. Is that server a standby of this primary?"
        )
    return None


def _told(state: StandbyState, limits: Limits, seen: dict[str, Any]) -> ReplicaHealth:
    """Without the primary: by where it was when it last told the standby."""
    if state.primary_lsn is None or not state.streams:
        return ReplicaHealth(status=ReplicaStatus.DISCONNECTED, reason=_why_disconnected(state), **seen)
    return _judged(state, state.primary_lsn, limits, {**seen, "primary_lsn": state.primary_lsn})


def _judged(state: StandbyState, primary_lsn: str, limits: Limits, seen: dict[str, Any]) -> ReplicaHealth:
    lag_bytes = max(0, parse_lsn(primary_lsn) - parse_lsn(state.replayed_lsn))
    if not state.streams or not state.in_recovery:
        status, reason = ReplicaStatus.DISCONNECTED, _why_disconnected(state)
    elif lag_bytes > limits.lag_bytes:
        status = ReplicaStatus.LAGGING
        reason = f"{lag_bytes:,} bytes behind, more than {limits.lag_bytes:,}"
    elif (seconds := seen.get("lag_seconds")) is not None and seconds > limits.lag_seconds:
        status = ReplicaStatus.LAGGING
        reason = f"a heartbeat of {seconds:.0f} s ago has not arrived; {limits.lag_seconds:g} s are allowed"
    else:
        status, reason = ReplicaStatus.HEALTHY, f"it streams from {seen['sender']}, {lag_bytes:,} bytes behind"
    return ReplicaHealth(status=status, reason=reason, lag_bytes=lag_bytes, **seen)


def _why_disconnected(state: StandbyState) -> str:
    if not state.in_recovery:
        return "it takes writes: it is no standby, or it was promoted and two servers are writable"
    if state.stream == "streaming":
        return f"its primary has been silent for {state.silent_seconds or 0:.0f} s: the connection is dead or stalled"
    return f"no primary streams to it (receiver: {state.stream}); see its log, and its slot at the primary"


def _standby_facts(url: str) -> tuple[str, int, str | None, str | None]:
    with _connected(url) as connection:
        row = connection.execute(_STANDBY_FACTS).fetchone()
    assert row is not None
    return row[0], row[1], row[2], row[3]


def _compared(
    url: str, primary_url: str, slot_name: str, state: StandbyState, limits: Limits
) -> tuple[_Primary, _Heartbeats, StandbyState]:
    """Write a heartbeat and wait for it; then where the primary is, and after that where the standby is."""
    with _connected(primary_url) as connection:
        # A synchronous primary whose standby is gone would never answer.
        connection.execute("SET synchronous_commit = local")
        beat, written = _write_beat(connection), time.monotonic()
        arrived = _wait_for_beat(_same_database(url, connection), beat, limits.arrival_seconds if state.streams else 0)
        took = time.monotonic() - written
        row = connection.execute(_AGES, {"arrived": arrived}).fetchone()
        assert row is not None
        age_seconds, unarrived_seconds = row
        position = connection.execute(_POSITION, (slot_name,)).fetchone()
        assert position is not None
    have_arrived = unarrived_seconds is None
    beats = _Heartbeats(took if have_arrived else unarrived_seconds, age_seconds, have_arrived)
    return _Primary(*position), beats, ask_standby(url)


def _write_beat(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("SELECT to_regclass('depot_ops.heartbeats')").fetchone()
    if row is None or row[0] is None:
        connection.execute(_TABLE)
    row = connection.execute(_BEAT, (KEPT_BEATS,)).fetchone()
    assert row is not None
    return int(row[0])


def _wait_for_beat(standby: str, beat: int, timeout_seconds: float) -> int:
    """The newest beat that the standby has, `beat` when it comes in time."""
    deadline = time.monotonic() + timeout_seconds
    with _connected(standby) as connection:
        while (arrived := _newest_beat(connection)) < beat and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
    return arrived


def _newest_beat(connection: psycopg.Connection[Any]) -> int:
    try:
        row = connection.execute(_ARRIVED).fetchone()
    except psycopg.errors.UndefinedTable:
        return 0
    return int(row[0]) if row else 0


def _same_database(url: str, primary: psycopg.Connection[Any]) -> str:
    return make_conninfo("", **{**conninfo_to_dict(url), "dbname": primary.info.dbname})


def _connected(url: str) -> psycopg.Connection[Any]:
    return psycopg.connect(
        url,
        autocommit=True,
        connect_timeout=conninfo_to_dict(url).get("connect_timeout") or CONNECT_TIMEOUT_SECONDS,
        options=f"-c statement_timeout={STATEMENT_TIMEOUT_MILLISECONDS}",
        application_name="depot-ops replica check",
    )


def place_of(url: str) -> str:
    """Host, port and database of an address, without what is secret in it."""
    try:
        address = conninfo_to_dict(url)
    except psycopg.Error:
        return "(not an address)"
    return f"{address.get('host', 'localhost')}:{address.get('port', 5432)}/{address.get('dbname', '')}"
