"""What `last`, `daily`, `weekly` and `monthly` keep."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from depot_ops.evidence import Status
from depot_ops.postgres.retention import (
    Action,
    BaseElement,
    DrillFact,
    Dump,
    KeepPolicy,
    WalFile,
    holds,
    plan_chains,
    plan_dumps,
    plan_wal,
)
from depot_ops.postgres.wal.names import parse_wal_name

NONE = {"minutes": 0, "days": 0, "weeks": 0, "months": 0, "minimum": 1}


def nights(count: int, start: datetime = datetime(2026, 1, 1, 1, tzinfo=UTC)) -> dict[str, datetime]:
    moments = [start + timedelta(days=n) for n in range(count)]
    return {f"{moment:%Y-%m-%d}": moment for moment in moments}


def kept(taken: dict[str, datetime], **policy: object) -> list[str]:
    return sorted(name for name, reasons in holds(taken, KeepPolicy(**{**NONE, **policy})).items() if reasons)


def test_last_is_counted_in_minutes_back_from_the_newest():
    newest = datetime(2026, 3, 1, 12, tzinfo=UTC)
    taken = {str(minutes): newest - timedelta(minutes=minutes) for minutes in (0, 59, 60, 61)}
    assert kept(taken, minutes=60) == ["0", "59", "60"]


def test_daily_keeps_the_newest_of_each_day_in_the_studios_time_zone():
    taken = {
        "evening": datetime(2026, 7, 1, 22, tzinfo=UTC),
        "past midnight in London": datetime(2026, 7, 1, 23, 30, tzinfo=UTC),
        "morning": datetime(2026, 7, 2, 6, tzinfo=UTC),
    }
    assert kept(taken, days=2) == ["morning", "past midnight in London"]
    assert kept(taken, days=2, zone=ZoneInfo("Europe/London")) == ["evening", "morning"]


def test_weekly_goes_by_iso_week_also_over_new_year():
    taken = nights(12, datetime(2026, 12, 26, 1, tzinfo=UTC))  # a Saturday; 2026 has 53 weeks
    assert kept(taken, weeks=3) == ["2026-12-27", "2027-01-03", "2027-01-06"]


def test_monthly_keeps_the_newest_of_each_month():
    assert kept(nights(70), months=3) == ["2026-01-31", "2026-02-28", "2026-03-11"]


def test_a_year_of_nights_with_the_containers_defaults():
    policy = KeepPolicy()
    reasons = holds(nights(365), policy)
    assert len([name for name, why in reasons.items() if why]) == 14
    assert reasons["2026-12-31"] == [
        "one of the newest 2",
        "last",
        "daily 2026-12-31",
        "weekly 2026-W53",
        "monthly 2026-12",
    ]
    assert reasons["2026-11-30"] == ["monthly 2026-11"]


def test_nothing_at_all_keeps_the_minimum():
    assert kept(nights(9), minimum=3) == ["2026-01-07", "2026-01-08", "2026-01-09"]
    with pytest.raises(ValidationError):
        KeepPolicy(minimum=0)


def test_what_is_not_proved_neither_counts_nor_goes():
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    good = Dump("a", "depot", moment, 7, Status.HEALTHY)
    bad = [Dump(f"b{n}", "depot", moment + timedelta(days=n), 7, Status.UNHEALTHY, "cut short") for n in range(5)]
    decisions = plan_dumps([*bad, good], KeepPolicy(**NONE))
    assert {decision.action for decision in decisions} == {Action.KEEP}
    assert "cut short" in decisions[-1].reason


def element(name: str, parent: str | None, day: int, status: Status = Status.HEALTHY) -> BaseElement:
    return BaseElement(name, parent, datetime(2026, 1, day, tzinfo=UTC), day * 10, 1, status, "why")


CHAINS = [
    element("a", None, 1),
    element("b", "a", 2),
    element("c", None, 3),
    element("d", "c", 4),
    element("e", None, 5),
]


def test_a_chain_stays_whole_for_one_of_its_elements():
    decisions = plan_chains(CHAINS, KeepPolicy(**{**NONE, "days": 2}))
    assert [(d.name, d.action, d.members) for d in decisions] == [
        ("a", Action.DELETE, ("a", "b")),
        ("c", Action.KEEP, ("c", "d")),
        ("e", Action.KEEP, ("e",)),
    ]
    assert decisions[1].reason == "daily 2026-01-04"


def test_what_builds_on_a_damaged_full_backup_is_not_proved():
    elements = [element("a", None, 1), element("c", None, 3, Status.UNHEALTHY), element("d", "c", 4)]
    decisions = plan_chains(elements, KeepPolicy(**NONE))
    assert [d.action for d in decisions] == [Action.KEEP, Action.KEEP]
    assert decisions[0].reason == "one of the newest 1, last"


def test_log_goes_with_the_backups_that_needed_it_on_every_timeline_and_histories_are_not_asked_about():
    names = ["000000010000000000000009", "00000001000000000000001D", "00000002000000000000001D.partial"]
    names += ["00000002000000000000001E", "00000003000000000000001F"]
    files = [WalFile(name, name.segment_number(), 3) for text in names if (name := parse_wal_name(text))]
    decisions = plan_chains(CHAINS, KeepPolicy(**{**NONE, "days": 2}))
    drill = DrillFact(finished_at=datetime(2026, 1, 6, tzinfo=UTC), passed=True, base_label="d")
    plan = plan_wal(files, CHAINS, decisions, [drill])
    assert [(d.action, d.members) for d in plan] == [
        (Action.DELETE, (names[0], names[1])),
        (Action.DELETE, (names[2],)),
        (Action.KEEP, (names[3],)),
        (Action.KEEP, (names[4],)),
    ]
    assert "drill restored d" in plan[0].reason
    later = drill.model_copy(update={"passed": False, "finished_at": datetime(2026, 1, 7, tzinfo=UTC)})
    held = plan_wal(files, CHAINS, decisions, [later, drill])
    assert {d.action for d in held} == {Action.KEEP}
    assert "no drill" in held[0].reason
