"""What retention let go here is let go there, by the same rules, and never the last that is sound there."""

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from depot_ops.copies.copying import CopyError, copy_backups
from depot_ops.copies.holdings import list_copy, listing, look
from depot_ops.copies.proofs import remove_damaged, verify_copy
from depot_ops.copies.pruning import JOURNAL_NAME, prune_copy
from depot_ops.copies.units import units
from depot_ops.evidence import Status, worst
from depot_ops.places import open_place
from depot_ops.postgres.base_record import find_base_backups
from depot_ops.postgres.dump_record import find_backups
from depot_ops.postgres.prune import prune
from depot_ops.postgres.retention import Action, KeepPolicy, Kind

FIRST_SEED, SEEDS = int(os.environ.get("SEED", "0")), int(os.environ.get("COPY_SEEDS", "1"))
WEEK = KeepPolicy(minutes=0, days=7, weeks=0, months=0)
PRUNE = """
import sys
from pathlib import Path
from depot_ops.copies.pruning import prune_copy
from depot_ops.places import open_place
from depot_ops.postgres.prune import Retention
from depot_ops.postgres.retention import KeepPolicy
week = KeepPolicy(minutes=0, days=7, weeks=0, months=0)
place = open_place(sys.argv[3])
delete, left = place.delete, int(sys.argv[4])
def counted(key):
    global left
    delete(key)
    left -= 1
    if left == 0:
        print("enough", flush=True)
        sys.stdin.readline()
place.delete = counted
prune_copy(Retention(Path(sys.argv[1]), Path(sys.argv[2]), week, week), place)
"""


@pytest.fixture(scope="module")
def three_weeks(tmp_path_factory, new_estate) -> Path:
    """All that they leave, and a copy of it from when nothing had been let go."""
    home = tmp_path_factory.mktemp("three-weeks")
    estate = new_estate(home)
    estate.nights(20)
    chains = estate.weeks_of_chains(3)
    estate.log(52)
    estate.drill(chains[-1][0])
    (home / "second").mkdir()
    copy_backups(estate.backup_dir, estate.archive.root, open_place((home / "second").as_uri()))
    return home


@pytest.fixture
def aged(estate, place, place_dir, three_weeks):
    for path in (estate.backup_dir, estate.archive.root, place_dir):
        shutil.copytree(three_weeks / path.name, path, dirs_exist_ok=True)
    estate.drill(find_base_backups(estate.backup_dir)[-7], from_place=str(place))
    copy_backups(estate.backup_dir, estate.archive.root, place)
    return estate


def keys(estate) -> set[str]:
    archive_root = estate.archive.root if estate.archive.root.exists() else None
    return {file.key for unit in units(estate.backup_dir, archive_root) for file in unit.files}


def test_what_went_here_goes_there_and_nothing_else(aged, place, tmp_path):
    here = prune(aged.retention(WEEK, WEEK))
    planned = prune_copy(aged.retention(WEEK, WEEK), place, dry_run=True)
    assert [d.name for d in planned.deleted] == [d.name for d in here.deleted]
    assert planned.freed_bytes == here.freed_bytes > 0
    assert {d.kind for d in planned.deleted} == set(Kind)
    assert not (aged.backup_dir / JOURNAL_NAME).exists()
    assert len(listing(place)) > len(keys(aged))
    prune_copy(aged.retention(WEEK, WEEK), place)
    assert set(listing(place)) == keys(aged)
    assert (aged.backup_dir / JOURNAL_NAME).exists()
    assert worst(verify_copy(look(place, tmp_path / "home"))) is Status.HEALTHY
    assert prune_copy(aged.retention(WEEK, WEEK), place).deleted == []


def test_what_is_still_here_stays_there(aged, place):
    pruned = prune_copy(aged.retention(WEEK, WEEK), place)
    assert pruned.deleted == []
    assert "it is still in BACKUP_DIR" in {d.reason for d in pruned.decisions}
    assert set(listing(place)) == keys(aged)


def test_a_place_that_is_all_that_is_left_keeps_what_the_policy_keeps(aged, place):
    """Everything here is lost: nothing there may follow it but what retention would have let go anyway."""
    prune(aged.retention(WEEK, WEEK))
    kept = keys(aged)
    for path in [*aged.backup_dir.glob("*.dump*"), *aged.backup_dir.rglob("*.tar.gz"), *aged.archive.root.rglob("*.*")]:
        path.unlink()
    prune_copy(aged.retention(WEEK, WEEK), place)
    assert set(listing(place)) == kept


def test_backups_that_are_damaged_there_do_not_stand_for_others(aged, place, place_dir):
    """Two damaged newest dumps there: the two before them stay, though they went here."""
    night = KeepPolicy(minutes=0, days=0, weeks=0, months=0, minimum=2)
    prune(aged.retention(night, WEEK))
    newest = sorted(place_dir.rglob("*.dump"))
    for path in newest[-2:]:
        path.write_bytes(b"swor")
    pruned = prune_copy(aged.retention(night, WEEK), place)
    assert sorted(place_dir.rglob("*.dump")) == newest[-4:]
    told = {d.name: d.reason for d in pruned.decisions if d.action is Action.KEEP}
    assert all("not proved" in told[path.name] for path in newest[-2:])


def test_log_stays_there_until_a_drill_proved_a_backup_of_that_place(estate, place):
    estate.drill(estate.weeks_of_chains(3)[-1][0])
    estate.log(52)
    copy_backups(estate.backup_dir, estate.archive.root, place)
    for path in list(estate.archive.root.rglob("*.*"))[:20]:
        path.unlink()
    pruned = prune_copy(estate.retention(WEEK, WEEK), place)
    assert not [d for d in pruned.deleted if d.kind is Kind.WAL]


def test_a_backup_whose_record_is_damaged_there_stays(aged, place, place_dir):
    prune(aged.retention(WEEK, WEEK))
    record = sorted(place_dir.rglob("backup.json"))[0]
    record.write_text(record.read_text().replace("0", "1", 1))
    pruned = prune_copy(aged.retention(WEEK, WEEK), place)
    assert record.parent.name not in {name for decision in pruned.deleted for name in decision.members}
    assert record.exists()


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + SEEDS))
def test_killed_at_any_moment_and_run_again(aged, place, place_dir, tmp_path, seed):
    chance = random.Random(seed)
    prune(aged.retention(WEEK, WEEK))
    for _ in range(4):
        arguments = [aged.backup_dir, aged.archive.root, place_dir.as_uri(), str(chance.randint(1, 40))]
        with subprocess.Popen(
            [sys.executable, "-c", PRUNE, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            ended = process.stdout.readline() == ""
            process.send_signal(signal.SIGKILL)
        holdings = look(place, tmp_path / f"{chance.random()}")
        listed = list_copy(holdings)
        assert worst(listed) is Status.HEALTHY
        assert {path.name for path in find_backups(aged.backup_dir)} <= {f.figures["file"] for f in listed}
        if ended:
            break
    prune_copy(aged.retention(WEEK, WEEK), place)
    assert set(listing(place)) == keys(aged)


def test_in_object_storage(estate, bucket, tmp_path):
    estate.nights(9)
    copy_backups(estate.backup_dir, None, place := open_place(bucket.url))
    prune(estate.retention(WEEK, WEEK))
    assert len(prune_copy(estate.retention(WEEK, WEEK), place).deleted) == 2
    assert set(listing(place)) == keys(estate)
    dump = next(key for key in bucket.stored() if key.endswith(".dump"))
    bucket.flip_a_bit(dump)
    holdings = look(place, tmp_path / "home")
    [damaged] = [f for f in verify_copy(holdings) if f.status is not Status.HEALTHY]
    assert dump.endswith(str(damaged.figures["file"]))
    assert remove_damaged(holdings, estate.backup_dir, None) == [dump.removeprefix("depot/")]
    assert copy_backups(estate.backup_dir, None, place).refused == ()
    assert worst(verify_copy(look(place, tmp_path / "again"))) is Status.HEALTHY
    bucket.flip_a_bit(min(key for key in bucket.stored() if key.endswith(".dump.json")))
    before = bucket.stored()
    with pytest.raises(CopyError, match="nothing was deleted"):
        prune_copy(estate.retention(WEEK, WEEK), place)
    assert bucket.stored() == before
