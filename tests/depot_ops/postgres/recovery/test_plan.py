"""Which way a recovery takes, told by records alone: no server is asked."""

import os
import random
from pathlib import Path

import pytest

from depot_ops.postgres import recovery
from depot_ops.postgres.base_backup import damage_of
from depot_ops.postgres.base_record import load_base_backup
from depot_ops.postgres.recovery_plan import RestoreRefused, SourceIncomplete, Target, plans

SEEDS = int(os.environ.get("PLAN_SEEDS", "300"))


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


def prepared(estate, staged) -> tuple[tuple[str, ...], dict[str, bytes], list[str]]:
    """All that a restore does before a server starts: the chain, the log as it is staged, and what was left out."""
    left_out: list[str] = []
    plan = planned(estate, leave_out=left_out.append)
    for element in plan.chain:
        if problem := damage_of(element):
            raise SourceIncomplete(problem)
    recovery._stage(plan, estate.archive, staged)
    log = {path.name: path.read_bytes() for path in staged.iterdir()}
    return tuple(element.record.label for element in plan.chain), log, left_out


def harm(files, chance) -> Path:
    """Flip a bit, cut the end off, take a file away, or a segment with its record, or a whole backup."""
    path = chance.choice(files)
    content = path.read_bytes()
    place = chance.randrange(len(content))
    match chance.choice(["flip", "flip", "flip", "cut", "remove", "lose"]):
        case "flip":
            path.write_bytes(
                content[:place] + bytes([content[place] ^ 1 << chance.randrange(8)]) + content[place + 1 :]
            )
        case "cut":
            path.write_bytes(content[:place])
        case "remove":
            path.unlink()
        case "lose":
            lost = path.parent.iterdir() if is_base(path) else path.parent.glob(f"{path.stem}.*")
            for one in list(lost):
                one.unlink()
            if is_base(path):
                path.parent.rmdir()
    return path


def is_base(path) -> bool:
    return not path.name.startswith("0000")


def test_random_damage_is_refused_by_name_before_a_server_starts_or_changes_nothing(estate, tmp_path):
    """`make torture` asks servers too; that costs a second each, and this a hundredth."""
    full = estate.base(0)
    estate.base(2, estate.base(1, full))
    estate.log(18)
    good_chain, good_log, _ = prepared(estate, tmp_path / "good")
    assert (len(good_chain), len(good_log)) == (3, 5)
    roots = (estate.backup_dir, estate.archive.root)
    originals = {path: path.read_bytes() for root in roots for path in root.rglob("*") if path.is_file()}
    last = max(path for path in originals if path.suffix == ".gz" and not is_base(path))
    # Without its last segment an archive just ends earlier: nothing tells that there was one.
    files = sorted(path for path in originals if path.stem != last.stem)
    refused = 0
    for seed in range(SEEDS):
        chance = random.Random(seed)
        path = harm(files, chance)
        name = path.parent.name if is_base(path) else path.stem
        try:
            chain, log, left_out = prepared(estate, tmp_path / f"{seed}")
        except RestoreRefused as error:
            refused += 1
            assert name in str(error), (seed, path, str(error))
        else:
            assert good_log.items() <= log.items(), (seed, path)
            # Of a backup that is gone with its directory nothing is left to tell of: an older one leads on.
            is_told = any(name in told for told in left_out) or not path.parent.exists()
            assert chain == good_chain or is_told, (seed, path)
        for original, content in originals.items():
            original.parent.mkdir(exist_ok=True)
            original.write_bytes(content)
    assert refused > SEEDS // 4
