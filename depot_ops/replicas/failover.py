"""After the primary is lost: a standby is made the primary, step by step.

Each step looks again at what it relies on, and does nothing where it was done before. What was found is in a record
beside the nodes until the end, so that a failover that was interrupted anywhere is taken up by whoever comes.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import psycopg
from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from depot_api.epochs import EpochFile
from depot_ops.durable import write_private
from depot_ops.postgres.wal.names import format_lsn, parse_lsn
from depot_ops.replicas import handover as handovers
from depot_ops.replicas.create import Place
from depot_ops.replicas.fencing import CannotFence, Fenced, FencedByCommand, Unmeasured, fence, fence_by_command
from depot_ops.replicas.loss import HISTORY, Answer, is_standby, look
from depot_ops.replicas.nodes import FAILOVER_RECORD, Node, ReplicaError
from depot_ops.replicas.promotion import (
    CAUGHT_UP_SECONDS,
    Promotion,
    Refused,
    begin_epoch,
    depot_at,
    lead_others,
    make_writable,
    received,
    settle,
)
from depot_ops.replicas.server import ShutdownMode
from depot_ops.replicas.streaming import PrimaryFacts, connected, facts_of_primary
from depot_ops.replicas.synchronous import hand_on, objections, recorded
from depot_ops.replicas.tail import Tail, keep_tail

# Patroni's maximum_lag_on_failover.
MAX_LOSS_BYTES = 1 << 20
WRITES_SECONDS = 30.0
POLL_SECONDS = 0.05
THE_PRIMARY_WAS_LOST = "the primary was lost"


class Terms(BaseModel):
    """What may be lost, and who says so."""

    model_config = ConfigDict(frozen=True)

    max_loss_bytes: int = MAX_LOSS_BYTES
    accept_data_loss: bool = False
    reason: str = ""


class Failover(BaseModel):
    """How far it has come, and everything that it found."""

    model_config = ConfigDict(frozen=True)

    schema_version: Literal[1] = 1
    started_at: AwareDatetime
    finished_at: AwareDatetime | None = None
    system_identifier: int
    old_timeline: int
    suspects: tuple[str, ...]
    """Every node that is not proved to be a standby: each may have been the primary."""
    terms: Terms
    seen: tuple[str, ...] = ()
    """How the primary was found to be lost."""
    target: str | None = None
    fenced: dict[str, str] = {}
    """Which nodes, and how that was proved."""
    problems: tuple[str, ...] = ()
    """What data loss was accepted for."""
    told: dict[str, str] = {}
    """Which nodes may have been told to promote, with up to where each had the log: any may take writes soon."""
    fork_lsn: str | None = None
    """Up to where the target had the log when it was promoted."""
    lost_bytes: int | None = None
    """Of the old primary's log, what the new one never got; null when nobody knows. At most: not all were commits."""
    promoted_at: AwareDatetime | None = None
    epoch: int | None = None
    timeline: int | None = None
    first_write_at: AwareDatetime | None = None
    tail: tuple[Tail, ...] = ()

    @property
    def reason(self) -> str:
        return self.terms.reason or THE_PRIMARY_WAS_LOST

    def with_(self, **found: object) -> "Failover":
        return self.model_copy(update=found)


Step = Callable[[Place, Failover], Failover]


# The record ---------------------------------------------------------------------------------------------------------


def under_way(place: Place) -> Failover | None:
    """The failover that was begun here and has not ended. Raises ReplicaError."""
    path = place.nodes.directory / FAILOVER_RECORD
    try:
        return Failover.model_validate_json(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise ReplicaError(f"{path} is no record of a failover: {error}. Move it away and look at the nodes") from error


def save(place: Place, failover: Failover) -> Failover:
    write_private(place.nodes.directory / FAILOVER_RECORD, failover.model_dump_json(indent=2))
    return failover


def forget(place: Place) -> None:
    (place.nodes.directory / FAILOVER_RECORD).unlink(missing_ok=True)


def interrupted(place: Place) -> Failover | None:
    """The failover that is left to be ended. One that is not, because the primary came back, is forgotten."""
    failover = under_way(place)
    if failover is None or is_left_to_do(place, failover):
        return failover
    forget(place)
    return None


def is_left_to_do(place: Place, failover: Failover) -> bool:
    """Not where another node takes writes than the one that it promoted."""
    writable = {name for name, answer in _answers(place).items() if answer is Answer.WRITABLE}
    return writable <= failover.told.keys()


def has_promoted(place: Place, failover: Failover) -> bool:
    """Whether what it told to promote takes writes by now: then it has to be ended, whatever else is seen."""
    nodes = [node for node in place.nodes.all() if node.name in failover.told]
    return Answer.WRITABLE in look(place, nodes).values()


def _answers(place: Place) -> dict[str, Answer]:
    return look(place, place.nodes.all())


# The steps ----------------------------------------------------------------------------------------------------------


def begin(place: Place, terms: Terms, seen: tuple[str, ...] = (), name: str | None = None) -> Failover:
    """Is the primary lost, and what may have been the primary? Takes up a failover that was interrupted.

    Raises Refused when a node takes writes that this failover has not promoted.
    """
    if terms.accept_data_loss and not terms.reason.strip():
        raise Refused("data loss is accepted with a reason only: it is kept with the epoch")
    if name is not None:
        place.nodes.get(name)
    nodes, old = place.nodes.all(), interrupted(place)
    answers = _answers(place)
    for writable in (node for node, answer in answers.items() if answer is Answer.WRITABLE):
        if old is not None and writable in old.told:
            return save(place, old.with_(target=writable, fork_lsn=old.told[writable]))
        if writable == name:
            raise ReplicaError(f"{name} takes writes already: nothing is to be promoted")
        raise Refused(f"{writable} takes writes: nothing is lost. Use `depot-ops replica switchover`")
    suspected, told = _known_before(place, old)
    # What may have been told to promote becomes writable at any moment: it is the target, or it is fenced.
    target = name or next((one for one in sorted(told) if answers.get(one) is Answer.READ_ONLY), None)
    suspected |= told - {target}
    suspects = [node for node in nodes if node.name in suspected or not is_standby(place, node, answers[node.name])]
    if target in {node.name for node in suspects}:
        raise Refused(f"{target} may be the lost primary itself: start it as what it was, or rejoin it first")
    standbys = [node for node in nodes if node.name not in suspected and answers[node.name] is Answer.READ_ONLY]
    if not standbys:
        raise Refused("no standby answers: nothing can be promoted. Start one, or restore from a backup")
    with connected((place.nodes.get(target) if target else standbys[0]).conninfo(place.url)) as standby:
        row = standby.execute(HISTORY).fetchone()
    assert row is not None
    failover = Failover(
        started_at=old.started_at if old else datetime.now(UTC),
        system_identifier=row[0],
        old_timeline=row[1],
        suspects=tuple(node.name for node in suspects),
        terms=terms,
        seen=(*(old.seen if old else ()), *seen),
        target=target,
        fenced=old.fenced if old else {},
        told=old.told if old else {},
    )
    return save(place, failover)


def _known_before(place: Place, old: Failover | None) -> tuple[set[str], set[str]]:
    """By what was interrupted: which nodes may have been the primary, and which may have been told to promote."""
    suspected = set(old.suspects) if old else set()
    told = set(old.told) if old else set()
    if handover := handovers.under_way(place.nodes):
        suspected.add(handover.old)
        told |= {handover.target} if handover.is_promoting else set()
    return suspected, told


def choose(place: Place, failover: Failover) -> Failover:
    """The standby that has most of the log, of those in sync where the mode is synchronous, unless one was named."""
    if failover.target is not None:
        return failover
    have = {node.name: position for node in _standbys(place, failover) if (position := _position(place, node))}
    if not have:
        raise Refused("no standby answers: nothing can be promoted. Start one, or restore from a backup")
    members = recorded(place.nodes).members
    return save(place, failover.with_(target=max(have, key=lambda name: (name in members, have[name], name))))


def fence_suspects(place: Place, failover: Failover) -> Failover:
    """Stop whatever may be the primary for good, and measure what the target never got of its log.

    Raises Refused when one cannot be fenced, when another standby has more, or when too much would be lost, unless
    data loss was accepted.
    """
    if failover.fork_lsn is not None:
        return failover
    target = _target(place, failover)
    fenced, problems = _fence_all(place, failover)
    with connected(target.conninfo(place.url)) as standby:
        _, system_identifier, position = received(standby)
    problems += [
        f"{name} is of another cluster: nobody knows what the lost primary had"
        for name, found in fenced.items()
        if found.system_identifier not in (None, system_identifier)
    ]
    problems += _ahead(place, failover, target, position)
    problems += objections(place.nodes, target)
    end, unmeasured = _furthest(fenced, position)
    problems += unmeasured
    if not failover.suspects:
        problems.append("no node is known as the old primary, so that none could be fenced")
    lost_bytes = None if problems else max(0, end - position)
    if lost_bytes is not None and lost_bytes > failover.terms.max_loss_bytes:
        most = failover.terms.max_loss_bytes
        problems.append(f"{lost_bytes:,} bytes of the primary's log would be lost, more than {most:,}")
    proofs = failover.fenced | {name: found.proof for name, found in fenced.items()}
    failover = save(place, failover.with_(fenced=proofs, problems=tuple(problems)))
    if problems and not failover.terms.accept_data_loss:
        raise Refused(
            f"{target.name} was not promoted: {'; '.join(problems)}. Mend that, or say --accept-data-loss --reason"
        )
    if handover := handovers.under_way(place.nodes):  # a switchover that was killed is not taken back any more
        handovers.save(place.nodes, handover.model_copy(update={"target": target.name, "is_promoting": True}))
    fork = format_lsn(position)
    return save(place, failover.with_(fork_lsn=fork, lost_bytes=lost_bytes, told=failover.told | {target.name: fork}))


def verify_fence(place: Place, failover: Failover) -> Failover:
    """Ask every other node itself: each is silent or read-only. One that takes writes ends everything."""
    for name, answer in _answers(place).items():
        if answer is Answer.WRITABLE and name != failover.target:
            how = "although it was fenced" if name in failover.fenced else "although nobody promoted it"
            raise Refused(f"{name} takes writes {how}: find out who starts it, and stop that first")
    unproved = set(failover.suspects) - failover.fenced.keys()
    if unproved and not failover.terms.accept_data_loss:
        raise Refused(f"{', '.join(sorted(unproved))} was not fenced: nothing is promoted")
    return failover


def promote_target(place: Place, failover: Failover) -> Failover:
    """Promote the target, unless it was. From here on there is no way back."""
    if failover.fork_lsn is None:
        raise Refused("what would be lost was not measured: nothing is promoted")
    verify_fence(place, failover)
    target = _target(place, failover)
    with connected(depot_at(place, target)) as connection:
        in_recovery, system_identifier, position = received(connection)
        if system_identifier != failover.system_identifier:
            raise Refused(f"{target.name} is of another cluster than when this began: nothing is promoted")
        if in_recovery:
            ahead = _ahead(place, failover, target, position)
            if ahead and not failover.terms.accept_data_loss:
                raise Refused(f"{target.name} was not promoted: {'; '.join(ahead)}")
            successors = [node for node in _standbys(place, failover) if node.name != target.name]
            hand_on(place.nodes, place.url, target, successors)
            make_writable(connection, target)
    return save(place, failover.with_(promoted_at=failover.promoted_at or datetime.now(UTC)))


def begin_next_epoch(place: Place, failover: Failover, epochs: EpochFile | None) -> Failover:
    """Begin an epoch as the first write: from then on the service takes no server of an older one."""
    if failover.epoch is not None:
        return failover
    target = _target(place, failover)
    with connected(depot_at(place, target)) as connection:
        epoch = begin_epoch(connection, target.name, failover.reason, epochs)
        failover = save(place, failover.with_(epoch=epoch, first_write_at=datetime.now(UTC)))
        handovers.forget(place.nodes)  # a switchover that was killed before is ended with this
        return save(place, failover.with_(timeline=settle(place, connection, target)))


def await_writes(place: Place, failover: Failover) -> Failover:
    """Commit on the new primary as everyone finds it, and have the other standbys follow it."""
    target = _target(place, failover)
    lead_others(place, target, without=tuple(map(place.nodes.get, {*failover.suspects, target.name})))
    deadline = time.monotonic() + WRITES_SECONDS
    while (facts := _wrote(place)) is None or facts.data != target.data:
        if time.monotonic() > deadline:
            where = f"{facts.data} takes writes" if facts else "nobody does"
            raise ReplicaError(
                f"{target.name} was promoted, but at the address of the primary {where}: does it name every server?"
            )
        time.sleep(POLL_SECONDS)
    return failover


def finish(place: Place, failover: Failover, evidence: Path | None, archive: Path | None) -> Failover:
    """Keep what the old primary had and nobody else has, and end the failover."""
    if evidence is not None and failover.fork_lsn is not None and not failover.tail:
        fork = parse_lsn(failover.fork_lsn)
        kept = [
            keep_tail(place.server(node), fork, failover.system_identifier, evidence / name, archive)
            for name in failover.fenced
            if not (node := place.nodes.get(name)).is_remote
        ]
        failover = save(place, failover.with_(tail=tuple(kept)))
    return failover.with_(finished_at=datetime.now(UTC))


def finish_without_document(place: Place, failover: Failover) -> Failover:
    """Where nobody says where to."""
    return finish(place, failover, None, None)


def promote(
    place: Place,
    name: str,
    epochs: EpochFile | None = None,
    *,
    accept_data_loss: bool = False,
    reason: str = "",
    max_loss_bytes: int = MAX_LOSS_BYTES,
    conclude: Step = finish_without_document,
) -> Promotion:
    """Make the standby `name` the primary because somebody says that the primary is lost.

    Every other node that is not a standby is fenced first. Raises Refused when one cannot be, when one still takes
    writes, when another standby has more, or when more than `max_loss_bytes` would be lost; all but the second are
    overruled by `accept_data_loss` with a `reason`, which is kept with the epoch. `conclude` is the last step: it
    finishes the failover, and documents it.
    """
    terms = Terms(max_loss_bytes=max_loss_bytes, accept_data_loss=accept_data_loss, reason=reason)
    with place.nodes.locked():
        failover = begin(place, terms, name=name)
        for step in (choose, fence_suspects, promote_target):
            failover = step(place, failover)
        failover = await_writes(place, begin_next_epoch(place, failover, epochs))
        failover = conclude(place, failover)
        forget(place)
    return as_promotion(failover)


def as_promotion(failover: Failover) -> Promotion:
    """What a failover came to, as a switchover tells it."""
    assert failover.target is not None
    assert failover.epoch is not None
    assert failover.timeline is not None
    assert failover.first_write_at is not None
    assert failover.finished_at is not None
    return Promotion(
        kind="failover",
        promoted=failover.target,
        fenced=tuple(sorted(failover.fenced)),
        reason=failover.reason,
        epoch=failover.epoch,
        timeline=failover.timeline,
        lost_bytes=failover.lost_bytes,
        accepted_data_loss=failover.terms.accept_data_loss,
        write_gap_seconds=round((failover.first_write_at - failover.started_at).total_seconds(), 3),
        started_at=failover.started_at,
        duration_seconds=round((failover.finished_at - failover.started_at).total_seconds(), 3),
    )


# What the steps look at ---------------------------------------------------------------------------------------------


def _target(place: Place, failover: Failover) -> Node:
    if failover.target is None:
        raise Refused("no standby was chosen")
    return place.nodes.get(failover.target)


def _standbys(place: Place, failover: Failover) -> list[Node]:
    return [node for node in place.nodes.all() if node.name not in failover.suspects]


def _position(place: Place, node: Node) -> int | None:
    """None when it does not answer."""
    try:
        with connected(node.conninfo(place.url)) as connection:
            return received(connection)[2]
    except psycopg.OperationalError:
        return None


def _fence_all(place: Place, failover: Failover) -> tuple[dict[str, Fenced | FencedByCommand], list[str]]:
    fenced: dict[str, Fenced | FencedByCommand] = {}
    problems: list[str] = []
    for node in map(place.nodes.get, failover.suspects):
        try:
            with place.nodes.held(node.name, wait_seconds=CAUGHT_UP_SECONDS):
                fenced[node.name] = (
                    fence_by_command(place, node)
                    if node.is_remote
                    else fence(place.server(node), ShutdownMode.IMMEDIATE)
                )
        except CannotFence as error:
            problems.append(str(error))
    return fenced, problems


def _furthest(fenced: dict[str, Fenced | FencedByCommand], position: int) -> tuple[int, list[str]]:
    """Where the longest log of them ends, looked for from `position`, and which of them nobody can tell it of."""
    furthest, unknown = position, []
    for name, found in fenced.items():
        try:
            furthest = max(furthest, found.end_of_log(position))
        except Unmeasured as error:
            unknown.append(f"how far {name} got could not be measured: {error}")
    return furthest, unknown


def _ahead(place: Place, failover: Failover, target: Node, position: int) -> list[str]:
    """Another standby with more of the log: promoting this one would lose what that one has."""
    problems = []
    for node in _standbys(place, failover):
        if node.name == target.name:
            continue
        theirs = _position(place, node)
        if theirs is None:
            problems.append(f"how far {node.name} is could not be asked: it does not answer")
        elif theirs > position:
            problems.append(f"{node.name} has {theirs - position:,} bytes more: promote that")
    return problems


def _wrote(place: Place) -> PrimaryFacts | None:
    """Commit something at whoever is the primary for everyone; None when nobody is."""
    try:
        with connected(place.url) as connection:
            connection.execute("SELECT pg_logical_emit_message(true, 'depot-ops', 'failover')")
            return facts_of_primary(connection)
    except (psycopg.Error, ReplicaError):
        return None
