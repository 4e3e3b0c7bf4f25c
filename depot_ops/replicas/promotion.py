"""Making a standby the primary by a planned switchover, and what a failover has in common with it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import psycopg
from psycopg.conninfo import make_conninfo
from pydantic import AwareDatetime, BaseModel, ConfigDict

from depot_api.epochs import EpochFile
from depot_ops.postgres.wal.names import format_lsn, parse_lsn
from depot_ops.replicas import handover as handovers
from depot_ops.replicas import synchronous
from depot_ops.replicas.create import Place
from depot_ops.replicas.fencing import Unmeasured, fence
from depot_ops.replicas.handover import Handover
from depot_ops.replicas.loss import Answer, ask
from depot_ops.replicas.nodes import FAILOVER_RECORD, Node, ReplicaError
from depot_ops.replicas.rejoin import Rejoined, rejoin_node
from depot_ops.replicas.server import wait_until
from depot_ops.replicas.streaming import (
    PrimaryFacts,
    admit_role,
    connected,
    facts_of_primary,
    make_slot,
    prove_streaming,
)

CAUGHT_UP_SECONDS = 30.0
DRAIN_SECONDS = 1.0
LAST_BYTE_SECONDS = 30.0
PROMOTE_SECONDS = 60
POLL_SECONDS = 0.01
PROMOTE_POLL_SECONDS = 0.05
DATABASE = "depot"

# Those that have changed something and have not ended.
_WRITERS = "SELECT count(*) FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()"
_WRITES_ALLOWED = "ALTER SYSTEM RESET default_transaction_read_only"
_IN_RECOVERY = "SELECT pg_is_in_recovery()"
# With summarize_wal and an archive a promotion waits until the log is summarized, and the summarizer sleeps for up to
# half a minute where no log came in. A reload wakes it.
_WAKE_SUMMARIZER = "SELECT pg_reload_conf() WHERE current_setting('summarize_wal', true)::bool"
_RECEIVED = """
SELECT pg_is_in_recovery(), (SELECT system_identifier FROM pg_control_system()),
       greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())::text
"""


class Refused(ReplicaError):
    """A gate did not open: nothing was promoted."""


class Promotion(BaseModel):
    """What was promoted, and what it cost."""

    model_config = ConfigDict(frozen=True)

    schema_version: Literal[1] = 1
    kind: Literal["switchover", "failover"]
    promoted: str
    fenced: tuple[str, ...]
    reason: str
    epoch: int
    timeline: int
    lost_bytes: int | None
    """Of the old primary's log, what the new one never got; null when nobody knows. At most: not all were commits."""
    accepted_data_loss: bool = False
    write_gap_seconds: float
    """From the moment when the old primary was told to refuse writes to the first commit on the new one."""
    rejoined: Rejoined | None = None
    rejoin_failed: str | None = None
    started_at: AwareDatetime
    duration_seconds: float


def switchover(place: Place, name: str, epochs: EpochFile | None = None) -> Promotion:
    """Make the standby `name` the primary without losing anything, and the primary a standby of it.

    Raises ReplicaError. Until the standby is promoted, whatever fails gives the old primary its role back; what a
    killed one could not give back, the next one does, and one that was killed later is ended by the next one.
    """
    started_at, started = datetime.now(UTC), time.monotonic()
    with place.nodes.locked():
        target = place.nodes.get(name)
        handover = _taken_up(place, target)
        old, facts = (place.nodes.get(handover.old), None) if handover else _prepared(place, target)
        with place.nodes.held(old.name, wait_seconds=CAUGHT_UP_SECONDS if handover else 0.0):
            if facts is not None:
                handover = hand_over(place, old, facts, target)
            else:
                fence(place.server(old))
            assert handover is not None
            led = _promote(place, target, "switchover", epochs)
        # Of a failover that was refused before: whom it suspected is a standby now.
        (place.nodes.directory / FAILOVER_RECORD).unlink(missing_ok=True)
        lead_others(place, target, without=(old, target))
        rejoined, problem = _try_rejoin(place, target, old)
        synchronous.tend(place.nodes, target.conninfo(place.url), patient=False)
        handovers.forget(place.nodes)
    return Promotion(
        kind="switchover",
        promoted=target.name,
        fenced=(old.name,),
        reason="switchover",
        epoch=led.epoch,
        timeline=led.timeline,
        lost_bytes=0,
        write_gap_seconds=round((led.first_write_at - handover.began_at).total_seconds(), 3),
        rejoined=rejoined,
        rejoin_failed=problem,
        started_at=started_at,
        duration_seconds=round(time.monotonic() - started, 3),
    )


def _taken_up(place: Place, target: Node) -> Handover | None:
    """What is to be ended of a switchover that was killed; one that can be taken back is. Raises ReplicaError."""
    handover = handovers.under_way(place.nodes)
    if handover is None:
        return None
    if not handover.is_promoting:
        _take_back(place, handover)
        return None
    if handover.target != target.name:
        raise ReplicaError(
            f"{handover.described()} has not ended: `depot-ops replica switchover {handover.target}` ends it first"
        )
    others = [node for node in place.nodes.all() if node.name not in (handover.old, handover.target)]
    for other in others:
        if ask(other.conninfo(place.url)) is Answer.WRITABLE:
            raise Refused(f"{other.name} takes writes: {target.name} is not promoted beside it")
    return handover


def _take_back(place: Place, handover: Handover) -> None:
    """Make the old primary what it was: nothing was promoted."""
    old, nodes = place.nodes.get(handover.old), place.nodes
    for node in nodes.all():
        if node.name != old.name and ask(node.conninfo(place.url)) is Answer.WRITABLE:
            raise Refused(f"{node.name} takes writes after {handover.described()}: find out who promoted it")
    server = place.server(old)
    with nodes.held(old.name, wait_seconds=CAUGHT_UP_SECONDS):
        synchronous.restore(nodes, handover.synchronous)
        if ask(old.conninfo(place.url)) is not Answer.WRITABLE:
            server.stop()
        server.may_be_primary()
        if not old.supervised and not server.is_running():
            server.start()
    wait_until(
        lambda: ask(old.conninfo(place.url)) is Answer.WRITABLE,
        PROMOTE_SECONDS,
        f"{old.name} was to be the primary again, and takes no writes: see its log",
    )
    with connected(old.conninfo(place.url)) as primary:
        _take_writes_again(primary)
    handovers.forget(nodes)


def _prepared(place: Place, target: Node) -> tuple[Node, PrimaryFacts]:
    """Everything that takes time and can be refused, while writes still go on."""
    with connected(place.url) as primary:
        facts = facts_of_primary(primary)
        old = next((node for node in place.nodes.all() if node.data == facts.data), None)
        if old is None:
            raise ReplicaError(
                f"the primary at {facts.data} is no node of {place.nodes.directory}: it cannot be fenced"
            )
        if old.name == target.name:
            raise ReplicaError(f"{target.name} is the primary already")
        _require_epochs(place, old)
        primary.execute("CHECKPOINT")
        prove_streaming(primary, target.conninfo(place.url), target, CAUGHT_UP_SECONDS)
        # Made here it is there on the standby, too, when the old primary comes back as its standby.
        admit_role(primary, old, place.nodes.passfile(old), place.server(old))
    with connected(target.conninfo(place.url)) as standby:
        standby.execute("CHECKPOINT")  # a restartpoint: what it need not write when it is promoted
    return old, facts


def _require_epochs(place: Place, node: Node) -> None:
    with connected(depot_at(place, node)) as connection:
        row = connection.execute("SELECT to_regclass('public.cluster_epochs')").fetchone()
    if row is None or row[0] is None:
        raise ReplicaError(
            "the depot has no cluster epochs, so that an old primary could not be told: depot-ops migrate"
        )


def depot_at(place: Place, node: Node) -> str:
    """The depot's database on one node, as a superuser."""
    return make_conninfo(node.conninfo(place.url), dbname=DATABASE)


def hand_over(place: Place, old: Node, facts: PrimaryFacts, target: Node) -> Handover:
    """The old primary stopped, and the standby with its last byte; else it is the primary again, and this raises."""
    before = synchronous.recorded(place.nodes)
    handover = Handover(old=old.name, target=target.name, began_at=datetime.now(UTC), synchronous=before)
    handovers.save(place.nodes, handover)
    with _given_back(place, handover):
        with connected(old.conninfo(place.url)) as primary:
            _drain(primary)
        fenced = fence(place.server(old))
        if fenced.control.system_identifier != facts.system_identifier:
            raise ReplicaError(f"{old.data} is not the primary that answered: its cluster is another")
        if not fenced.control.is_clean:
            raise ReplicaError(f"{old.name} did not shut down cleanly: whether {target.name} has all is not proved")
        try:
            end = fenced.end_of_log(fenced.control.checkpoint_lsn)
        except Unmeasured as error:
            raise ReplicaError(f"where {old.name} ended is unknown, {target.name} may lack of it: {error}") from error
        with connected(target.conninfo(place.url)) as standby:
            wait_until(
                lambda: received(standby)[2] >= end,
                LAST_BYTE_SECONDS,
                f"{target.name} did not get the last of {old.name}, up to {format_lsn(end)}",
            )
        synchronous.hand_on(place.nodes, place.url, target, [old, *_others(place, old, target)])
    return handovers.save(place.nodes, handover.model_copy(update={"is_promoting": True}))


@contextmanager
def _given_back(place: Place, handover: Handover) -> Iterator[None]:
    """When the block raises, the old primary is what it was."""
    try:
        yield
    except BaseException:
        old = place.nodes.get(handover.old)
        server = place.server(old)
        synchronous.restore(place.nodes, handover.synchronous)
        server.may_be_primary()
        if server.is_running():
            with connected(old.conninfo(place.url)) as primary:
                _take_writes_again(primary)
        elif not old.supervised:
            server.start()
        handovers.forget(place.nodes)
        raise


def _drain(primary: psycopg.Connection[Any]) -> None:
    """Refuse new writes, and give the running ones a moment to commit: a shutdown would roll them back."""
    primary.execute("ALTER SYSTEM SET default_transaction_read_only = on")
    try:
        primary.execute("SELECT pg_reload_conf()")
        deadline = time.monotonic() + DRAIN_SECONDS
        while (row := primary.execute(_WRITERS).fetchone()) and row[0] and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
    finally:
        # In the file only: the server keeps refusing until it stops or is told to read it.
        primary.execute(_WRITES_ALLOWED)


def _take_writes_again(primary: psycopg.Connection[Any]) -> None:
    primary.execute(_WRITES_ALLOWED)
    primary.execute("SELECT pg_reload_conf()")


def received(standby: psycopg.Connection[Any]) -> tuple[bool, int, int]:
    """Is it a standby, of which cluster, and up to where has it the log?"""
    row = standby.execute(_RECEIVED).fetchone()
    assert row is not None
    in_recovery, system_identifier, position = row
    return in_recovery, system_identifier, parse_lsn(position or "0/0")


@dataclass(frozen=True, slots=True)
class _Led:
    epoch: int
    timeline: int
    first_write_at: datetime


def _promote(place: Place, target: Node, reason: str, epochs: EpochFile | None) -> _Led:
    """Promote, and begin an epoch as the first write."""
    with connected(depot_at(place, target)) as connection:
        make_writable(connection, target)
        epoch = begin_epoch(connection, target.name, reason, epochs)
        first_write_at = datetime.now(UTC)
        timeline = settle(place, connection, target)
    return _Led(epoch, timeline, first_write_at)


def make_writable(connection: psycopg.Connection[Any], target: Node) -> None:
    """Promote it, unless it was, and wait for its end. Raises ReplicaError."""
    if _is_in_recovery(connection):
        connection.execute("SELECT pg_promote(false)")
    deadline = time.monotonic() + PROMOTE_SECONDS
    while _is_in_recovery(connection):
        if time.monotonic() > deadline:
            raise ReplicaError(f"{target.name} was told to promote and did not within {PROMOTE_SECONDS} s: see its log")
        connection.execute(_WAKE_SUMMARIZER)
        time.sleep(PROMOTE_POLL_SECONDS)


def _is_in_recovery(connection: psycopg.Connection[Any]) -> bool:
    row = connection.execute(_IN_RECOVERY).fetchone()
    return bool(row and row[0])


def settle(place: Place, connection: psycopg.Connection[Any], target: Node) -> int:
    """What a new primary does when it takes writes already. Returns its timeline."""
    # The control file says the old timeline until then, and a rewind would read that.
    connection.execute("CHECKPOINT")
    place.server(target).configure({})
    return facts_of_primary(connection).timeline


def begin_epoch(connection: psycopg.Connection[Any], node: str, reason: str, epochs: EpochFile | None) -> int:
    """Begin the next epoch in the depot's database, and tell the service, where its file can be reached."""
    known = epochs.highest() if epochs else 0
    row = connection.execute("SELECT begin_cluster_epoch(%s, %s, %s)", (node, reason, known)).fetchone()
    assert row is not None
    if epochs:
        epochs.raise_to(row[0])
    return int(row[0])


def adopt(place: Place, epochs: EpochFile, reason: str) -> int:
    """Begin an epoch above all that the service has seen, at the primary that there is.

    For a database that was restored or rebuilt: it does not know of later epochs, and the service refuses it.
    """
    if not reason.strip():
        raise Refused("an older state is adopted with a reason only: it is kept with the epoch")
    with place.nodes.locked(), connected(make_conninfo(place.url, dbname=DATABASE)) as connection:
        facts = facts_of_primary(connection)
        node = next((one.name for one in place.nodes.all() if one.data == facts.data), "adopted")
        return begin_epoch(connection, node, reason, epochs)


def lead_others(place: Place, target: Node, without: tuple[Node, ...]) -> None:
    """The other standbys on this host follow the new primary."""
    left_out = {one.name for one in without}
    others = [node for node in place.nodes.all() if node.name not in left_out and not node.is_remote]
    with connected(target.conninfo(place.url)) as primary:
        for other in others:
            make_slot(primary, other)
            place.server(other).configure(place.settings(other, target.port))
            if place.server(other).is_running():
                with connected(other.conninfo(place.url)) as standby:
                    standby.execute("SELECT pg_reload_conf()")


def _others(place: Place, *without: Node) -> list[Node]:
    return [node for node in place.nodes.all() if node not in without]


def _try_rejoin(place: Place, target: Node, old: Node) -> tuple[Rejoined | None, str | None]:
    """The depot works without it: what stands in the way is told, and does not undo the promotion."""
    try:
        return rejoin_node(place, target, old), None
    except (ReplicaError, psycopg.Error, OSError) as error:
        return None, f"{error}. Run `depot-ops replica rejoin {old.name}`"
