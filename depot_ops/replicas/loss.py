"""Is the primary lost? Asked several times within seconds, from here and as its standbys see it.

A server that lets nobody in (it starts, it is full of clients) answers: it is not lost; nor is one that ended because
its disk is full. One that hangs does not answer, and is lost when its standbys have not heard of it either. Where every
node answers as a standby there is no primary, as after a switchover that was killed.
"""

import os
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

from depot_ops.postgres.wal.names import DEFAULT_SEGMENT_SIZE_BYTES
from depot_ops.replicas.create import Place
from depot_ops.replicas.nodes import Node, ReplicaError
from depot_ops.replicas.server import STANDBY_SIGNAL
from depot_ops.replicas.streaming import connected

ANSWER_SECONDS = 2
# An idle primary that lives says so at the latest after half of wal_receiver_timeout, which is 60 s.
MAX_SILENCE_SECONDS = 35.0
WORKERS = 8
HISTORY = """
SELECT (SELECT system_identifier FROM pg_control_system()),
       (SELECT greatest(timeline_id, min_recovery_end_timeline) FROM pg_control_checkpoint(), pg_control_recovery())
"""
_AS_SEEN_BY_STANDBY = f"""{HISTORY},
       coalesce(r.status, 'none'), extract(epoch FROM clock_timestamp() - r.last_msg_receipt_time)::float8,
       r.sender_host, r.sender_port
FROM (VALUES (1)) AS one LEFT JOIN pg_stat_wal_receiver r ON true
"""


class NotLost(ReplicaError):
    """A node takes writes: there is nothing to promote."""


class Answer(StrEnum):
    """What a node says when it is called."""

    WRITABLE = "takes writes"
    READ_ONLY = "is a standby"
    REJECTING = "runs and lets nobody in"
    SILENT = "does not answer"


@dataclass(frozen=True, slots=True)
class Patience:
    """So many failures among so many looks, a look every so often."""

    failures: int = 3
    looks: int = 4
    interval_seconds: float = 1.0
    watch_seconds: float = 4.2
    """How long is looked: between two watches nobody does. What is undecided then is decided in the next one."""


@dataclass(frozen=True, slots=True)
class Loss:
    """The primary of this timeline is lost; `seen` says from where that was seen."""

    system_identifier: int
    timeline: int
    seen: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    detail: str
    loss: Loss | None = None
    is_well: bool = False
    """A node takes writes."""
    looks: tuple[bool, ...] = ()
    """Which of the last looks failed, for whoever looks on."""


def watch_primary(
    place: Place, patience: Patience = Patience(), earlier: tuple[bool, ...] = (), begun: float | None = None
) -> Verdict:
    """Look until there is a verdict, or until the watch is over: no look is begun that would not end within it.

    `earlier` are the looks of a watch that ended just now, `begun` when this one did. Raises ReplicaError.
    """
    ends = (time.monotonic() if begun is None else begun) + patience.watch_seconds
    failures = deque(earlier, maxlen=patience.looks)
    nodes = place.nodes.all()
    while True:
        look_begun = time.monotonic()
        answers = look(place, nodes)
        failures.append(_nobody_writes(place, nodes, answers))
        if sum(failures) >= patience.failures:
            return _judged(place, nodes, answers, f"{sum(failures)} of {len(failures)} looks")
        now = time.monotonic()
        # What failed is looked at again sooner.
        next_look = max(now, look_begun + patience.interval_seconds * (0.5 if failures[-1] else 1.0))
        if next_look + (now - look_begun) > ends:
            return Verdict(described(answers), is_well=Answer.WRITABLE in answers.values(), looks=tuple(failures))
        time.sleep(next_look - now)


def look(place: Place, nodes: list[Node]) -> dict[str, Answer]:
    """What each node answers, all asked at once: one that hangs holds up no other."""
    with ThreadPoolExecutor(WORKERS) as pool:
        answers = pool.map(lambda node: ask(node.conninfo(place.url)), nodes)
        return dict(zip((node.name for node in nodes), answers, strict=True))


def ask(conninfo: str) -> Answer:
    """Takes ANSWER_SECONDS at most for each of its two calls, and only one of them where nobody answers."""
    address = make_conninfo(conninfo, connect_timeout=ANSWER_SECONDS, application_name="depot-ops watch")
    match pq.PGconn.ping(address.encode()):
        case pq.Ping.NO_RESPONSE:
            return Answer.SILENT
        case pq.Ping.REJECT:
            return Answer.REJECTING
    try:
        with psycopg.connect(address) as connection:
            is_standby = connection.pgconn.parameter_status(b"in_hot_standby") == b"on"
    except psycopg.OperationalError:
        return Answer.REJECTING  # it answered the ping
    return Answer.READ_ONLY if is_standby else Answer.WRITABLE


def is_standby(place: Place, node: Node, answer: Answer) -> bool:
    """Whether it is proved to be one, running or not.

    A primary that has been fenced before has the signal too, but was no standby when it stopped; and what is in the
    middle of a rejoin is nothing.
    """
    if node.is_remote:
        return answer is Answer.READ_ONLY
    if place.nodes.is_half_rewound(node.name):
        return False
    try:
        return (node.data / STANDBY_SIGNAL).exists() and place.server(node).control().is_of_standby
    except ReplicaError:
        return False


def _nobody_writes(place: Place, nodes: list[Node], answers: dict[str, Answer]) -> bool:
    """Nor is one merely busy that may be the primary."""
    if Answer.WRITABLE in answers.values():
        return False
    busy = [node for node in nodes if answers[node.name] is Answer.REJECTING]
    return all(is_standby(place, node, Answer.REJECTING) for node in busy)


def described(answers: dict[str, Answer]) -> str:
    return ", ".join(f"{name} {answer}" for name, answer in answers.items())


def _judged(place: Place, nodes: list[Node], answers: dict[str, Answer], how: str) -> Verdict:
    """Lost, when a standby can be asked and none hears of the primary."""
    here = f"from the operations host: {described(answers)} ({how})"
    seen, known = [here], None
    if full := [node.name for node in nodes if answers[node.name] is Answer.SILENT and _has_full_disk(node)]:
        return Verdict(f"{here}; but the disk of {', '.join(full)} is full: make room and start it, nothing is lost")
    standbys = {(node.host, node.port) for node in nodes if answers[node.name] is Answer.READ_ONLY}
    for node in nodes:
        if answers[node.name] is not Answer.READ_ONLY:
            continue
        try:
            with connected(node.conninfo(place.url), ANSWER_SECONDS) as standby:
                row = standby.execute(_AS_SEEN_BY_STANDBY).fetchone()
        except psycopg.Error as error:
            return Verdict(f"{here}; {node.name} could not be asked: {str(error).strip()}")
        assert row is not None
        system_identifier, timeline, receiver, silent_seconds, *sender = row
        hears = receiver == "streaming" and silent_seconds < MAX_SILENCE_SECONDS
        if hears and tuple(sender) not in standbys:  # an old primary that is read-only streams as well
            return Verdict(f"{here}; but {node.name} heard of its primary {silent_seconds:.0f} s ago: it is not lost")
        seen.append(f"from {node.name}: receiver {receiver}" + _silence(silent_seconds))
        known = system_identifier, max(timeline, known[1] if known else 0)
    if known is None:
        return Verdict(f"{here}; no standby answers: nothing could be promoted")
    return Verdict("the primary is lost: " + "; ".join(seen), Loss(*known, tuple(seen)))


def _has_full_disk(node: Node) -> bool:
    """A primary without room for its log ends, and so does its recovery: a standby would not be better off for long.

    Nobody can tell of one on another host.
    """
    if node.is_remote or (node.data / STANDBY_SIGNAL).exists():
        return False
    try:
        log = os.statvfs(node.data / "pg_wal")
    except OSError:
        return False  # with its disk it is lost
    return log.f_bavail * log.f_frsize < DEFAULT_SEGMENT_SIZE_BYTES


def _silence(seconds: float | None) -> str:
    return "" if seconds is None else f", silent for {seconds:.0f} s"


def require_loss(place: Place) -> Loss:
    """One look, for whoever was told of a loss. Raises NotLost, and ReplicaError when nobody can tell."""
    nodes = place.nodes.all()
    answers = look(place, nodes)
    if Answer.WRITABLE in answers.values():
        raise NotLost(described(answers))
    if not _nobody_writes(place, nodes, answers):
        raise ReplicaError(f"the primary is not lost: {described(answers)}")
    verdict = _judged(place, nodes, answers, "looked at again")
    if verdict.loss is None:
        raise ReplicaError(verdict.detail)
    return verdict.loss
