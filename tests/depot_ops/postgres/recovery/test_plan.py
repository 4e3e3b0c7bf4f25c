"""Which way a recovery takes, told by records alone: no server is asked."""

import pytest

from depot_ops.postgres.base_record import load_base_backup
from depot_ops.postgres.recovery_plan import SourceIncomplete, Target, plans


def planned(estate, target=Target(), **options):  # noqa: B008 - frozen
    return next(plans(estate.backup_dir, estate.archive, target, **options))


@pytest.fixture
def chain(estate):
    """A full backup and two that build on it, and a full one before them."""
    estate.log(30)
    older, full = estate.base(0), estate.base(3)
    first = estate.base(4, full)
    return older, full, first, estate.base(5, first)


def test_an_old_record_that_is_damaged_hinders_no_restore(estate, chain):
    older, full, first, newest = chain
    (older / "backup.json").write_text("{}")
    said: list[str] = []
    plan = planned(estate, leave_out=said.append)
    assert [element.path for element in plan.chain] == [full, first, newest]
    assert said == []
    before = Target.at_time(load_base_backup(full).record.finished_at)
    assert planned(estate, before, leave_out=said.append).base.path == full


def test_a_damaged_one_is_left_out_by_name_and_an_older_one_leads_on(estate, chain):
    older, full, first, newest = chain
    (first / "backup.json").write_text("{}")
    said: list[str] = []
    assert planned(estate, leave_out=said.append).base.path == full
    assert [line.split(" is left out: ")[0] for line in said] == [newest.name, first.name]
    assert str(first / "backup.json") in said[0]
    with pytest.raises(SourceIncomplete, match=str(first / "backup.json")):
        planned(estate, base=newest.name)
    for path in (older, full):
        (path / "backup.json").unlink()
    with pytest.raises(SourceIncomplete, match=r"backup\.json"):
        planned(estate)


def test_the_room_for_a_chain_is_that_of_a_cluster_which_has_grown(estate, chain):
    plan = planned(estate)
    log = 2 * len(plan.segments) * plan.segment_size_bytes
    assert plan.needed_bytes == 2 * sum(element.record.size_bytes for element in plan.chain) + log
