"""Synchronous replication: a commit is acknowledged when a standby has it, too.

One invariant carries it: every acknowledged commit is on at least one of the recorded *members*. The record, beside the
nodes, is widened before the primary is told and narrowed only when the primary was seen to wait for the narrower set,
so that whoever promotes after a crash at any moment can rely on it. Nobody is a member while the mode is degraded.
"""

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import psycopg
from psycopg import sql
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from depot_ops.durable import write_private
from depot_ops.evidence import Figures, Finding, Status
from depot_ops.replicas.nodes import Node, Nodes, ReplicaError
from depot_ops.replicas.server import wait_until
from depot_ops.replicas.streaming import CONNECT_TIMEOUT_SECONDS, connected, facts_of_primary

CHECK = "synchronous_replication"
RECORD = ".synchronous"
DEGRADE_AFTER_SECONDS = 10.0
# A standby that confirms nothing for this long is looked at as lost; what happens then is a matter of patience.
CONFIRM_SECONDS = 1.0
ESTABLISH_SECONDS = 10.0
RELOAD_SECONDS = 10.0
LOCK_SECONDS = 30.0
POLL_SECONDS = 0.02
STAMP_SECONDS = 5.0
# Nobody has looked after a record for so long: what it says may be of another time.
STALE_SECONDS = 60.0

_SETTINGS = "SELECT current_setting('synchronous_standby_names'), current_setting('synchronous_commit')"
_POSITION = "SELECT pg_current_wal_flush_lsn()::text"
_CONFIRMED = """
SELECT application_name FROM pg_stat_replication
WHERE application_name = ANY(%(names)s) AND state = 'streaming'
  AND CASE WHEN %(commit)s = 'remote_apply' THEN replay_lsn ELSE flush_lsn END >= %(position)s::pg_lsn
"""


class Policy(StrEnum):
    """What happens to writes when no standby confirms them."""

    OFF = "off"
    """Nobody waits for a standby."""
    STOP = "stop"
    """They wait until one does: the depot answers 503, and nothing acknowledged is ever lost."""
    DEGRADE = "degrade"
    """After a time they go on without, and an alarm says since when and from where on."""


class Commit(StrEnum):
    """Of PostgreSQL's synchronous_commit: what a standby has done with a commit before it is acknowledged."""

    ON = "on"
    REMOTE_APPLY = "remote_apply"


class Degraded(BaseModel):
    """From `from_lsn` on, what was acknowledged may be on the primary only."""

    model_config = ConfigDict(frozen=True)

    since: AwareDatetime
    from_lsn: str
    reason: str


class Synchronous(BaseModel):
    """The mode of these nodes, and who has what was acknowledged in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    policy: Policy = Policy.OFF
    commit: Commit = Commit.REMOTE_APPLY
    degrade_after_seconds: float = Field(DEGRADE_AFTER_SECONDS, ge=0)
    members: tuple[str, ...] = ()
    """Every acknowledged commit is on at least one of them; none while it is degraded or not established yet."""
    lost_since: AwareDatetime | None = None
    """Since when a member has confirmed nothing."""
    degraded: Degraded | None = None
    tended_at: AwareDatetime | None = None
    """When somebody last looked after it, to within STAMP_SECONDS."""

    def with_(self, **changed: Any) -> "Synchronous":
        return self.model_copy(update=changed)


def recorded(nodes: Nodes) -> Synchronous:
    """Raises ReplicaError: who may be promoted must not be guessed."""
    path = _path(nodes)
    try:
        return Synchronous.model_validate_json(path.read_text())
    except FileNotFoundError:
        return Synchronous()
    except (OSError, ValidationError) as error:
        raise ReplicaError(f"{path} is no record of the synchronous mode: {error}. Set the mode anew") from error


def _save(nodes: Nodes, record: Synchronous) -> Synchronous:
    path, text = _path(nodes), record.model_dump_json(indent=2)
    if not path.exists() or path.read_text().removesuffix("\n") != text:
        write_private(path, text)
    return record


def _path(nodes: Nodes) -> Path:
    return nodes.directory / RECORD


# Who is waited for --------------------------------------------------------------------------------------------------


def switch(nodes: Nodes, url: str, policy: Policy, commit: Commit, degrade_after_seconds: float) -> Synchronous:
    """Set the mode, and return when it holds. Raises ReplicaError when no standby follows; then nothing has changed."""
    with nodes.locked(), nodes.tended(LOCK_SECONDS):
        if policy is Policy.OFF:
            record = Synchronous(policy=policy, commit=commit, degrade_after_seconds=degrade_after_seconds)
            _save(nodes, record)
            _tell(url, "", Commit.ON)
            return record
        with connected(url) as primary:
            leader = _leader(nodes, primary)
            standbys = _others(nodes, leader)
            confirming = _confirming(primary, standbys, commit, _position(primary), CONFIRM_SECONDS)
        if not confirming:
            raise ReplicaError("no standby follows the primary: make one with `depot-ops replica create` first")
        record = recorded(nodes).with_(policy=policy, commit=commit, degrade_after_seconds=degrade_after_seconds)
        _save(nodes, record)
        return _tend(nodes, url, patient=True)


def tend(nodes: Nodes, url: str, *, patient: bool = True) -> Synchronous:
    """Have the primary wait for the standbys that there are: what a watcher does all the time.

    A member that is lost is given up after `degrade_after_seconds`, at once where not `patient`: the others remain, and
    where none does, the policy decides. Raises ReplicaError and psycopg.Error.
    """
    with nodes.tended(LOCK_SECONDS):
        return _tend(nodes, url, patient)


def _tend(nodes: Nodes, url: str, patient: bool) -> Synchronous:
    record = recorded(nodes)
    if record.policy is Policy.OFF:
        return record
    with connected(url) as primary:
        leader = _leader(nodes, primary)
        standbys = _others(nodes, leader)
        confirming = _confirming(primary, standbys, record.commit, _position(primary), CONFIRM_SECONDS)
    lost = set(record.members) - set(confirming) - {leader.name}
    is_well = bool(confirming) and not lost
    lost_since = None if is_well else record.lost_since or datetime.now(UTC)
    record = _save(nodes, _stamped(record.with_(lost_since=lost_since)))
    passed = (datetime.now(UTC) - lost_since).total_seconds() if lost_since else 0.0
    gives_up = not patient or passed >= record.degrade_after_seconds
    if confirming and (is_well or gives_up):
        return _establish(nodes, url, record, leader, confirming)
    if confirming:
        return _establish(nodes, url, record, leader, sorted({*confirming, *lost}))
    if record.policy is Policy.DEGRADE and gives_up and record.degraded is None:
        return _degrade(nodes, url, record, "no standby confirms")
    return record


def _stamped(record: Synchronous) -> Synchronous:
    """Now and then only: a watcher looks every second, and each record is on disk before it goes on."""
    now = datetime.now(UTC)
    if record.tended_at is not None and (now - record.tended_at).total_seconds() < STAMP_SECONDS:
        return record
    return record.with_(tended_at=now)


def release(nodes: Nodes, url: str, node: Node, *, comes_back: bool = False) -> None:
    """Before `node` is taken away: commits wait for the others.

    Raises ReplicaError when nobody would be left to wait for; one that `comes_back` is then waited for.
    """
    with nodes.tended(LOCK_SECONDS):
        _release(nodes, url, node, comes_back)


def _release(nodes: Nodes, url: str, node: Node, comes_back: bool) -> None:
    record = recorded(nodes)
    if record.policy is Policy.OFF:
        return
    with connected(url) as primary:
        leader = _leader(nodes, primary)
        left = [name for name in _others(nodes, leader) if name != node.name]
        confirming = _confirming(primary, left, record.commit, _position(primary), CONFIRM_SECONDS)
    if confirming:
        _establish(nodes, url, record, leader, confirming)
    elif record.policy is Policy.DEGRADE:
        _degrade(nodes, url, record, f"{node.name} was taken away")
    elif not comes_back:
        raise ReplicaError(
            f"without {node.name} every write would wait for ever: make another standby, or allow less with"
            " `depot-ops replica synchronous degrade`"
        )


def _establish(nodes: Nodes, url: str, record: Synchronous, leader: Node, wanted: list[str]) -> Synchronous:
    names = _rendered(wanted)
    if record.members == tuple(wanted) and record.degraded is None and _told(url) == (names, str(record.commit)):
        return record
    # Members that include the primary are those of before a promotion: the others have not got everything yet.
    if record.members and leader.name not in record.members:
        record = _save(nodes, record.with_(members=tuple(sorted({*record.members, *wanted}))))
    _tell(url, names, record.commit)
    with connected(url) as primary:
        # The checkpointer turns waiting on for everyone. It had its signal when a new session had the new value, and a
        # checkpoint that is begun later comes after that.
        primary.execute("CHECKPOINT")
        if not _confirming(primary, wanted, record.commit, _position(primary), ESTABLISH_SECONDS, enough=1):
            return record
    return _save(nodes, record.with_(members=tuple(wanted), degraded=None))


def _degrade(nodes: Nodes, url: str, record: Synchronous, reason: str) -> Synchronous:
    with connected(url) as primary:
        degraded = Degraded(since=datetime.now(UTC), from_lsn=_position(primary), reason=reason)
    record = _save(nodes, record.with_(members=(), degraded=degraded))
    _tell(url, "", record.commit)
    return record


# Around a promotion -------------------------------------------------------------------------------------------------


def objections(nodes: Nodes, target: Node) -> list[str]:
    """Why acknowledged commits may be missing on `target`. That no other member has more is asked of them, not here."""
    record = recorded(nodes)
    if record.policy is Policy.OFF or target.name in record.members:
        return []
    if record.degraded:
        return [
            f"nobody is in sync since {record.degraded.since:%Y-%m-%d %H:%M:%S %Z} ({record.degraded.reason}): what was"
            f" acknowledged from {record.degraded.from_lsn} on may be missing on {target.name}"
        ]
    return [f"{target.name} was not in sync; in sync was: {', '.join(record.members) or 'none'}"]


def hand_on(nodes: Nodes, url: str, target: Node, successors: list[Node]) -> None:
    """Just before `target`, which has everything that was acknowledged, is promoted: for whom it waits then.

    Where there are no successors, it does not wait in the mode that may degrade, and waits for anyone in the other.
    """
    with nodes.tended(LOCK_SECONDS):
        _hand_on(nodes, url, target, successors)


def _hand_on(nodes: Nodes, url: str, target: Node, successors: list[Node]) -> None:
    record = recorded(nodes)
    if record.policy is Policy.OFF:
        return
    waits_for = [node.name for node in successors]
    degraded = None
    if not waits_for and record.policy is Policy.STOP:
        waits_for = _others(nodes, target)
    elif not waits_for:
        with connected(target.conninfo(url)) as standby:
            row = standby.execute("SELECT pg_last_wal_receive_lsn()::text").fetchone()
        position = (row and row[0]) or "0/0"
        degraded = Degraded(since=datetime.now(UTC), from_lsn=position, reason=f"{target.name} was promoted alone")
    _save(nodes, record.with_(members=(target.name,), degraded=degraded, lost_since=None))
    _tell(target.conninfo(url), _rendered(waits_for), record.commit)


def restore(nodes: Nodes, record: Synchronous) -> None:
    """After `hand_on`, when nothing was promoted: the old primary waits for whom it waited for before."""
    with nodes.tended(LOCK_SECONDS):
        _save(nodes, record)


# The primary's settings ---------------------------------------------------------------------------------------------


def _rendered(names: list[str]) -> str:
    """Any one of them: which is the fastest changes all the time, and the most advanced one has everything."""
    quoted = ", ".join(f'"{name}"' for name in sorted(names))
    return f"ANY 1 ({quoted})" if names else ""


def _told(url: str) -> tuple[str, str]:
    # Not `connected`, whose sessions have a synchronous_commit of their own.
    with psycopg.connect(url, connect_timeout=CONNECT_TIMEOUT_SECONDS) as fresh:
        row = fresh.execute(_SETTINGS).fetchone()
    assert row is not None
    return row[0], row[1]


def _tell(url: str, names: str, commit: Commit) -> None:
    """Returns when every new session heeds it."""
    with connected(url) as server:
        for setting, value in (("synchronous_commit", str(commit)), ("synchronous_standby_names", names)):
            statement = sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(setting), sql.Literal(value))
            server.execute(statement)
        server.execute("SELECT pg_reload_conf()")
    wait_until(
        lambda: _told(url) == (names, str(commit)),
        RELOAD_SECONDS,
        f"the server did not take synchronous_standby_names = {names!r}: see its log",
    )


def _leader(nodes: Nodes, primary: psycopg.Connection[Any]) -> Node:
    data = facts_of_primary(primary).data
    for node in nodes.all():
        if node.data == data:
            return node
    raise ReplicaError(f"the primary at {data} is no node of {nodes.directory}")


def _others(nodes: Nodes, leader: Node) -> list[str]:
    return [node.name for node in nodes.all() if node.name != leader.name]


def _position(primary: psycopg.Connection[Any]) -> str:
    row = primary.execute(_POSITION).fetchone()
    assert row is not None
    return str(row[0])


def _confirming(
    primary: psycopg.Connection[Any],
    names: list[str],
    commit: Commit,
    position: str,
    seconds: float,
    enough: int | None = None,
) -> list[str]:
    """Which of them have the log up to `position`, as soon as `enough` of them have it (all), or after the time."""
    deadline = time.monotonic() + seconds
    asked = {"names": names, "commit": str(commit), "position": position}
    while True:
        rows = primary.execute(_CONFIRMED, asked).fetchall()
        found = sorted({name for (name,) in rows})
        if len(found) >= (enough or len(names)) or time.monotonic() > deadline:
            return found
        time.sleep(POLL_SECONDS)


# What it is now -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Seen:
    """What the primary itself says."""

    leader: str
    waits_for: tuple[str, ...]
    confirming: tuple[str, ...]


def check_synchronous(nodes: Nodes, url: str) -> Finding:
    """Healthy where the mode is off, and where a standby has every acknowledged commit, by the primary's own word."""
    try:
        record = recorded(nodes)
        seen = None if record.policy is Policy.OFF else _seen(nodes, url, record)
    except (ReplicaError, psycopg.Error) as error:
        return Finding(check=CHECK, status=Status.UNKNOWN, detail=str(error).strip())
    figures: Figures = {"policy": str(record.policy), "members": len(record.members)}
    status, detail = judged(record, seen)
    return Finding(check=CHECK, status=status, detail=detail, figures=figures)


def _seen(nodes: Nodes, url: str, record: Synchronous) -> Seen:
    names, _ = _told(url)
    with connected(url) as primary:
        leader = _leader(nodes, primary)
        members = list(record.members)
        confirming = _confirming(primary, members, record.commit, _position(primary), CONFIRM_SECONDS, enough=1)
    return Seen(leader.name, tuple(re.findall(r'"([^"]+)"', names)), tuple(confirming))


def judged(record: Synchronous, seen: Seen | None) -> tuple[Status, str]:
    if record.policy is Policy.OFF or seen is None:
        return Status.HEALTHY, "commits wait for no standby: a failover may lose the last of them"
    if problem := _problem(record, seen):
        return Status.UNHEALTHY, problem
    if record.tended_at is None or (datetime.now(UTC) - record.tended_at).total_seconds() > STALE_SECONDS:
        since = f"since {record.tended_at:%Y-%m-%d %H:%M:%S %Z}" if record.tended_at else "yet"
        return Status.UNKNOWN, f"nobody has looked after the mode {since}: run `depot-ops replica keep-synchronous`"
    return Status.HEALTHY, f"every acknowledged commit is on one of: {', '.join(record.members)}"


def _problem(record: Synchronous, seen: Seen) -> str | None:
    if record.degraded:
        return (
            f"degraded since {record.degraded.since:%Y-%m-%d %H:%M:%S %Z} from {record.degraded.from_lsn} on"
            f" ({record.degraded.reason}): what is acknowledged is on the primary only. Bring a standby back"
        )
    if record.lost_since:
        return (
            f"a standby confirms nothing since {record.lost_since:%Y-%m-%d %H:%M:%S %Z}: if it is the only one, writes"
            " wait. See its log"
        )
    if not set(record.members) - {seen.leader}:
        return "no standby was proved to be in sync: does `depot-ops replica keep-synchronous` run?"
    members = ", ".join(record.members)
    if not seen.waits_for or not set(seen.waits_for) <= set(record.members):
        return f"the primary waits for {', '.join(seen.waits_for) or 'nobody'} instead of {members}: set the mode anew"
    return None if seen.confirming else f"none of {members} confirms: writes wait. See their logs"
