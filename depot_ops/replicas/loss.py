"""Is the primary lost? Asked several times within seconds, from here and as its standbys see it.

A server that lets nobody in (it starts, it is full of clients, its disk is full) answers: it is not lost. One that
hangs does not answer, and is lost when its standbys have not heard of it either.
"""

import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

from depot_ops.replicas.create import Place
from depot_ops.replicas.nodes import Node, ReplicaError
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
       coalesce(r.status, 'none'), extract(epoch FROM clock_timestamp() - r.last_msg_receipt_time)::float8
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
    watch_seconds: float = 4.0
    """How long a primary that is well is looked at: the watchers' own pauses are blind."""
    give_up_seconds: float = 5.5
    """After this no further look is begun; what is undecided then is decided the next time."""


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


def watch_primary(place: Place, patience: Patience = Patience()) -> Verdict:
    """Look until there is a verdict: within ten seconds, whatever hangs. Raises ReplicaError."""
    begun = time.monotonic()
    failures: deque[bool] = deque(maxlen=patience.looks)
    nodes = place.nodes.all()
    while True:
        look_begun = time.monotonic()
        answers = look(place, nodes)
        failures.append(_is_silent(answers))
        passed = time.monotonic() - begun
        if sum(failures) >= patience.failures:
            return _judged(place, nodes, answers, f"{sum(failures)} of {len(failures)} looks in {passed:.1f} s")
        if passed > patience.give_up_seconds or (passed > patience.watch_seconds and not any(failures)):
            return Verdict(described(answers))
        nodes.sort(key=lambda node: answers.get(node.name) is not Answer.WRITABLE)
        time.sleep(max(0.0, look_begun + patience.interval_seconds - time.monotonic()))


def look(place: Place, nodes: list[Node]) -> dict[str, Answer]:
    """What each node answers; only what the first one does when it takes writes."""
    first, *others = nodes
    answers = {first.name: ask(first.conninfo(place.url))}
    if answers[first.name] is Answer.WRITABLE or not others:
        return answers
    with ThreadPoolExecutor(WORKERS) as pool:
        asked = pool.map(lambda node: ask(node.conninfo(place.url)), others)
        return answers | dict(zip((node.name for node in others), asked, strict=True))


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


def _is_silent(answers: dict[str, Answer]) -> bool:
    """Nobody takes writes, somebody says nothing, and nobody is merely busy."""
    given = set(answers.values())
    return Answer.SILENT in given and not given & {Answer.WRITABLE, Answer.REJECTING}


def described(answers: dict[str, Answer]) -> str:
    return ", ".join(f"{name} {answer}" for name, answer in answers.items())


def _judged(place: Place, nodes: list[Node], answers: dict[str, Answer], how: str) -> Verdict:
    """Lost, when a standby can be asked and none hears of the primary."""
    here = f"from the operations host: {described(answers)} ({how})"
    seen, known = [here], None
    for node in nodes:
        if answers[node.name] is not Answer.READ_ONLY:
            continue
        try:
            with connected(node.conninfo(place.url), ANSWER_SECONDS) as standby:
                row = standby.execute(_AS_SEEN_BY_STANDBY).fetchone()
        except psycopg.Error as error:
            return Verdict(f"{here}; {node.name} could not be asked: {str(error).strip()}")
        assert row is not None
        system_identifier, timeline, receiver, silent_seconds = row
        if receiver == "streaming" and silent_seconds < MAX_SILENCE_SECONDS:
            return Verdict(f"{here}; but {node.name} heard of its primary {silent_seconds:.0f} s ago: it is not lost")
        seen.append(f"from {node.name}: receiver {receiver}" + _silence(silent_seconds))
        known = system_identifier, max(timeline, known[1] if known else 0)
    if known is None:
        return Verdict(f"{here}; no standby answers: nothing could be promoted")
    return Verdict("the primary is lost: " + "; ".join(seen), Loss(*known, tuple(seen)))


def _silence(seconds: float | None) -> str:
    return "" if seconds is None else f", silent for {seconds:.0f} s"


def require_loss(place: Place) -> Loss:
    """One look, for whoever was told of a loss. Raises NotLost, and ReplicaError when nobody can tell."""
    nodes = place.nodes.all()
    answers = look(place, nodes)
    if Answer.WRITABLE in answers.values():
        raise NotLost(described(answers))
    if not _is_silent(answers):
        raise ReplicaError(f"the primary is not lost: {described(answers)}")
    verdict = _judged(place, nodes, answers, "looked at again")
    if verdict.loss is None:
        raise ReplicaError(verdict.detail)
    return verdict.loss
