"""What may go, and why: planning over what is known of dumps, base backups, the log and drills. Touches nothing.

No plan asks the clock. Days, weeks and months are counted as those in which a proved backup was taken, and minutes back
from the newest proved one: while no backup succeeds nothing gets older, and the first one after an outage of any
length pushes out one day, one week and one month, as every night does.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum
from typing import TypedDict

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from depot_ops.evidence import Status
from depot_ops.postgres.wal.names import WalName

MAX_KEEP_MINUTES = 10_000_000
OF_THE_MINIMUM = "one of the newest"


class Kind(StrEnum):
    """What a decision is about."""

    DUMP = "dump"
    BASE_CHAIN = "base_chain"
    WAL = "wal"


class Action(StrEnum):
    """What shall become of it."""

    KEEP = "keep"
    DELETE = "delete"


class KeepPolicy(BaseModel):
    """What is kept: as `last`, `daily`, `weekly` and `monthly` of the pgbackups container, but of proved backups."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    minutes: int = Field(1440, ge=0, le=MAX_KEEP_MINUTES)
    """Everything that was taken within so many minutes before the newest."""
    days: int = Field(7, ge=0)
    """The newest of each day, for so many days that have one."""
    weeks: int = Field(4, ge=0)
    """The newest of each ISO week."""
    months: int = Field(6, ge=0)
    """The newest of each month."""
    minimum: int = Field(2, ge=1)
    """So many of the newest, whatever the others say."""
    zone: tzinfo = UTC
    """Where a day begins."""


class Decision(BaseModel):
    """What shall become of a backup, a chain or a stretch of the log, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    name: str
    action: Action
    reason: str
    size_bytes: int
    members: tuple[str, ...]
    """The dump, the labels of a chain from its full backup on, or the files of the log."""
    system_identifier: int | None = None
    """The cluster, of a chain or of the log."""


class Verdict(TypedDict):
    """The two halves of a decision."""

    action: Action
    reason: str


@dataclass(frozen=True, slots=True)
class Dump:
    """A logical backup. Only a healthy one is proved; `detail` says what was seen."""

    name: str
    database: str
    taken_at: datetime
    size_bytes: int
    status: Status
    detail: str = ""


@dataclass(frozen=True, slots=True)
class BaseElement:
    """A base backup, full or part of a chain."""

    name: str
    parent: str | None
    taken_at: datetime
    first_segment_number: int
    """The segment in which it began: without it the backup is no good."""
    size_bytes: int
    status: Status
    detail: str = ""


@dataclass(frozen=True, slots=True)
class WalFile:
    """A file of the archive that belongs to one segment."""

    name: WalName
    number: int
    size_bytes: int


class DrillFact(BaseModel):
    """What a restore drill showed of one base backup."""

    model_config = ConfigDict(frozen=True)

    finished_at: AwareDatetime
    passed: bool
    base_label: str
    replayed_to_lsn: str | None = None


@dataclass(frozen=True, slots=True)
class Chain:
    """A full backup and everything that builds on it. It goes whole or not at all."""

    elements: tuple[BaseElement, ...]
    proved: tuple[BaseElement, ...]
    """Those that are sound together with all that they build on."""

    @property
    def name(self) -> str:
        return self.elements[0].name

    @property
    def newest_proved_at(self) -> datetime:
        return max(element.taken_at for element in self.proved)


def holds(taken: Mapping[str, datetime], policy: KeepPolicy) -> dict[str, list[str]]:
    """Why each of these proved backups is kept; no reason means that it may go."""
    newest_first = sorted(taken, key=lambda name: (taken[name], name), reverse=True)
    reasons: dict[str, list[str]] = {name: [] for name in newest_first}
    for name in newest_first[: policy.minimum]:
        reasons[name].append(f"{OF_THE_MINIMUM} {policy.minimum}")
    for name in newest_first:
        if taken[newest_first[0]] - taken[name] <= timedelta(minutes=policy.minutes):
            reasons[name].append("last")
    periods: list[tuple[str, int, Callable[[datetime], str]]] = [
        ("daily", policy.days, lambda moment: f"{moment:%Y-%m-%d}"),
        ("weekly", policy.weeks, lambda moment: f"{moment:%G-W%V}"),
        ("monthly", policy.months, lambda moment: f"{moment:%Y-%m}"),
    ]
    for period, keep, label in periods:
        newest_of: dict[str, str] = {}
        for name in newest_first:
            newest_of.setdefault(label(taken[name].astimezone(policy.zone)), name)
        for when, name in list(newest_of.items())[:keep]:
            reasons[name].append(f"{period} {when}")
    return reasons


def plan_dumps(dumps: Iterable[Dump], policy: KeepPolicy) -> list[Decision]:
    """What shall become of each dump: the dumps of one database never push out those of another."""
    dumps = sorted(dumps, key=lambda dump: dump.name)
    by_database: dict[str, dict[str, datetime]] = defaultdict(dict)
    for dump in dumps:
        if dump.status is Status.HEALTHY:
            by_database[dump.database][dump.name] = dump.taken_at
    reasons = {name: why for taken in by_database.values() for name, why in holds(taken, policy).items()}
    return [
        Decision(
            kind=Kind.DUMP,
            name=dump.name,
            size_bytes=dump.size_bytes,
            members=(dump.name,),
            **_verdict(reasons.get(dump.name), dump.detail),
        )
        for dump in dumps
    ]


def _verdict(reasons: list[str] | None, detail: str) -> Verdict:
    if reasons is None:
        unproved = f"not proved, so it does not count: {detail}. Look at it, and delete it yourself"
        return {"action": Action.KEEP, "reason": unproved}
    if reasons:
        return {"action": Action.KEEP, "reason": ", ".join(reasons)}
    return {"action": Action.DELETE, "reason": "newer ones stand for its time, or its day, week and month are over"}


def chains_of(elements: Iterable[BaseElement]) -> list[Chain]:
    """The chains that these backups form, the oldest first."""
    known = {element.name: element for element in elements}
    members: dict[str, list[BaseElement]] = defaultdict(list)
    proved: dict[str, list[BaseElement]] = defaultdict(list)
    for name in sorted(known):
        lineage = _lineage(known[name], known)
        root = lineage[0]
        members[root.name].append(known[name])
        if root.parent is None and all(element.status is Status.HEALTHY for element in lineage):
            proved[root.name].append(known[name])
    return [Chain(tuple(members[root]), tuple(proved[root])) for root in sorted(members)]


def _lineage(element: BaseElement, known: Mapping[str, BaseElement]) -> list[BaseElement]:
    """What `element` builds on, as far as it is known, and itself. Records that go in a circle end where they began."""
    lineage = [element]
    while (parent := known.get(lineage[0].parent or "")) is not None and parent not in lineage:
        lineage.insert(0, parent)
    return lineage


def plan_chains(elements: Sequence[BaseElement], policy: KeepPolicy) -> list[Decision]:
    """What shall become of each chain of one cluster: all of it is kept as long as any of it is."""
    chains = chains_of(elements)
    if unseen := next((element for element in elements if element.status is Status.UNKNOWN), None):
        reason = f"{unseen.name} could not be looked at: {unseen.detail}. Nothing goes until it can"
        return [_chain_decision(chain, {"action": Action.KEEP, "reason": reason}) for chain in chains]
    by_element = holds({e.name: e.taken_at for chain in chains for e in chain.proved}, policy)
    only_minimum = KeepPolicy(minutes=0, days=0, weeks=0, months=0, minimum=policy.minimum)
    by_chain = holds({chain.name: chain.newest_proved_at for chain in chains if chain.proved}, only_minimum)
    decisions = []
    for chain in chains:
        held = [*by_chain.get(chain.name, []), *(reason for e in chain.proved for reason in by_element[e.name])]
        detail = "; ".join(element.detail for element in chain.elements if element.detail)
        verdict = _verdict(list(dict.fromkeys(held)) if chain.proved else None, detail)
        decisions.append(_chain_decision(chain, verdict))
    return decisions


def _chain_decision(chain: Chain, verdict: Verdict) -> Decision:
    return Decision(
        kind=Kind.BASE_CHAIN,
        name=chain.name,
        size_bytes=sum(element.size_bytes for element in chain.elements),
        members=tuple(element.name for element in chain.elements),
        **verdict,
    )


def plan_wal(
    files: Iterable[WalFile],
    elements: Sequence[BaseElement],
    chain_decisions: Iterable[Decision],
    drills: Iterable[DrillFact],
) -> list[Decision]:
    """What shall become of the log of one cluster, timeline by timeline.

    The log from the start of the oldest kept and proved backup on stays without a gap, on every timeline. Older log
    goes, but only once a drill has restored a backup that is kept.
    """
    kept = {label for decision in chain_decisions if decision.action is Action.KEEP for label in decision.members}
    needed = _needed_log(elements, kept, drills)
    stretches: dict[tuple[int, Action], list[WalFile]] = defaultdict(list)
    for file in sorted(files, key=lambda file: (file.number, file.name.name)):
        action = Action.DELETE if file.number < needed.first_number else Action.KEEP
        stretches[file.name.timeline, action].append(file)
    return [
        Decision(
            kind=Kind.WAL,
            name=f"{stretch[0].name.name} to {stretch[-1].name.name}",
            action=action,
            reason=needed.why if action is Action.KEEP else needed.why_not_older,
            size_bytes=sum(file.size_bytes for file in stretch),
            members=tuple(file.name.name for file in stretch),
        )
        for (_timeline, action), stretch in sorted(stretches.items(), key=lambda item: (item[0][0], item[1][0].number))
    ]


@dataclass(frozen=True, slots=True)
class _NeededLog:
    """From which segment on the log is needed; from the first on as long as nothing proves otherwise."""

    why: str
    first_number: int = 0
    why_not_older: str = ""


def _needed_log(elements: Sequence[BaseElement], kept: set[str], drills: Iterable[DrillFact]) -> _NeededLog:
    if unseen := next((element for element in elements if element.status is Status.UNKNOWN), None):
        return _NeededLog(f"{unseen.name} could not be looked at, and may need it")
    usable = [e for chain in chains_of(elements) for e in chain.proved if e.name in kept]
    if not usable:
        return _NeededLog("there is no proved base backup that could do without it")
    last_drills = {drill.base_label: drill for drill in sorted(drills, key=lambda drill: drill.finished_at)}
    drilled = [e.name for e in usable if e.name in last_drills and last_drills[e.name].passed]
    if not drilled:
        return _NeededLog("no drill has restored a backup that is kept: older log may be all that works")
    oldest = min(usable, key=lambda element: (element.first_segment_number, element.name))
    return _NeededLog(
        f"needed from {oldest.name} on, the oldest base backup that is kept",
        oldest.first_segment_number,
        f"older than {oldest.name}, the oldest base backup that is kept; a drill restored {drilled[-1]}",
    )
