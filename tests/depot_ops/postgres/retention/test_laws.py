"""The laws of retention, whatever the backups look like."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from depot_ops.evidence import Status
from depot_ops.postgres.retention import (
    Action,
    BaseElement,
    Decision,
    DrillFact,
    Dump,
    KeepPolicy,
    WalFile,
    chains_of,
    plan_chains,
    plan_dumps,
    plan_wal,
)
from depot_ops.postgres.wal.names import parse_wal_name, segment_name

START = datetime(2026, 1, 1, 1, tzinfo=UTC)
MINUTES_IN_A_YEAR = 525_600

policies = st.builds(
    KeepPolicy,
    minutes=st.integers(0, 3000),
    days=st.integers(0, 5),
    weeks=st.integers(0, 4),
    months=st.integers(0, 4),
    minimum=st.integers(1, 4),
    zone=st.sampled_from([UTC, ZoneInfo("Europe/London"), ZoneInfo("Pacific/Apia")]),
)
statuses = st.sampled_from([Status.HEALTHY] * 6 + [Status.UNHEALTHY, Status.UNKNOWN])


@st.composite
def dumps(draw) -> list[Dump]:
    moments = draw(st.lists(st.integers(0, MINUTES_IN_A_YEAR), max_size=30, unique=True))
    return [
        Dump(
            name=f"depot-{moment:07}",
            database=draw(st.sampled_from(["depot", "other"])),
            taken_at=START + timedelta(minutes=moment),
            size_bytes=1,
            status=draw(statuses),
        )
        for moment in moments
    ]


@st.composite
def base_backups(draw) -> list[BaseElement]:
    """Chains, some with a damaged or a lost link, as months of weekly and daily backups leave them."""
    elements: list[BaseElement] = []
    for number, moment in enumerate(sorted(draw(st.sets(st.integers(0, 200_000), max_size=20)))):
        parent = draw(st.sampled_from([None, *(e.name for e in elements[-1:])]))
        elements.append(
            BaseElement(
                name=f"b{number:03}",
                parent=parent,
                taken_at=START + timedelta(minutes=moment),
                first_segment_number=10 + number * 5,
                size_bytes=1,
                status=draw(st.sampled_from([Status.HEALTHY] * 9 + [Status.UNHEALTHY])),
            )
        )
    lost = draw(st.sampled_from([None, *elements]))
    return [element for element in elements if element is not lost]


def left(decisions: list[Decision]) -> set[str]:
    return {member for decision in decisions if decision.action is Action.KEEP for member in decision.members}


def gone(decisions: list[Decision]) -> set[str]:
    return {member for decision in decisions if decision.action is Action.DELETE for member in decision.members}


def proved(backups: list[Dump], database: str) -> list[Dump]:
    found = [dump for dump in backups if dump.status is Status.HEALTHY and dump.database == database]
    return sorted(found, key=lambda dump: dump.taken_at)


@given(dumps(), policies)
def test_the_newest_and_the_minimum_of_each_database_stay_and_what_is_not_proved_neither_goes_nor_counts(had, policy):
    kept = left(plan_dumps(had, policy))
    for database in ("depot", "other"):
        assert {dump.name for dump in proved(had, database)[-policy.minimum :]} <= kept
    assert {dump.name for dump in had if dump.status is not Status.HEALTHY} <= kept
    only_proved = [dump for dump in had if dump.status is Status.HEALTHY]
    assert gone(plan_dumps(only_proved, policy)) == gone(plan_dumps(had, policy))


@given(dumps(), policies)
def test_once_done_there_is_nothing_to_do(had, policy):
    kept = left(plan_dumps(had, policy))
    assert gone(plan_dumps([dump for dump in had if dump.name in kept], policy)) == set()


@given(dumps(), policies, st.integers(1, 20 * MINUTES_IN_A_YEAR))
def test_the_first_backup_after_any_outage_pushes_out_no_more_than_one_of_each_kind(had, policy, outage_minutes):
    kept = left(plan_dumps(had, policy))
    before = [dump for dump in had if dump.name in kept and dump.status is Status.HEALTHY and dump.database == "depot"]
    last = max((dump.taken_at for dump in before), default=START)
    first = Dump("z-first", "depot", last + timedelta(minutes=outage_minutes), 1, Status.HEALTHY)
    decisions = plan_dumps([*before, first], policy)
    reasons = {decision.name: decision.reason for decision in plan_dumps(before, policy)}
    pushed_out = [reasons[name] for name in gone(decisions) if reasons[name] != "last"]
    assert len(pushed_out) <= 4  # of the minimum, the days, the weeks and the months
    for period, keep in (("daily", policy.days), ("weekly", policy.weeks), ("monthly", policy.months)):
        held = {d.name for d in plan_dumps(before, policy) if period in d.reason}
        assert len(held & left(decisions)) >= min(len(held), keep) - 1


@given(base_backups(), policies)
def test_chains_stay_or_go_whole_and_the_newest_proved_stay(had, policy):
    decisions = plan_chains(had, policy)
    kept = left(decisions)
    chains = chains_of(had)
    assert sorted(m for d in decisions for m in d.members) == sorted(element.name for element in had)
    for chain in chains:
        members = {element.name for element in chain.elements}
        assert members <= kept or not members & kept
    sound = sorted((chain for chain in chains if chain.proved), key=lambda chain: chain.newest_proved_at)
    assert {chain.name for chain in sound[-policy.minimum :]} <= kept
    for element in had:
        assert element.name not in kept or element.parent not in gone(decisions)
    assert gone(plan_chains([element for element in had if element.name in kept], policy)) == set()


@given(base_backups(), policies, st.data())
def test_nothing_goes_while_one_base_backup_cannot_be_looked_at(had, policy, data):
    if not had:
        return
    unseen = data.draw(st.sampled_from(had))
    had = [replace(e, status=Status.UNKNOWN, detail="I/O error") if e is unseen else e for e in had]
    decisions = plan_chains(had, policy)
    assert gone(decisions) == set()
    assert gone(plan_wal(log(range(200)), had, decisions, [drill(element.name) for element in had])) == set()


@given(base_backups(), policies, st.lists(st.tuples(st.integers(0, 25), st.booleans()), max_size=8))
def test_log_that_a_kept_backup_needs_stays_and_older_goes_only_when_a_drill_restored_a_kept_one(had, policy, drilled):
    decisions = plan_chains(had, policy)
    drills = [
        DrillFact(finished_at=START + timedelta(hours=n), passed=passed, base_label=f"b{number:03}")
        for n, (number, passed) in enumerate(drilled)
    ]
    plan = plan_wal(log(range(150)), had, decisions, drills)
    usable = [e for chain in chains_of(had) for e in chain.proved if e.name in left(decisions)]
    last = {fact.base_label: fact.passed for fact in drills}
    expired = gone(plan)
    if not any(last.get(element.name) for element in usable):
        assert expired == set()
        return
    oldest = min(element.first_segment_number for element in usable)
    assert expired == {segment_name(1, number) for number in range(oldest)}
    assert gone(plan_wal([f for f in log(range(150)) if f.name.name not in expired], had, decisions, drills)) == set()


def log(numbers: range, timeline: int = 1) -> list[WalFile]:
    names = [parse_wal_name(segment_name(timeline, number)) for number in numbers]
    return [WalFile(name, name.segment_number(), 1) for name in names if name]


def drill(label: str) -> DrillFact:
    return DrillFact(finished_at=START, passed=True, base_label=label)
