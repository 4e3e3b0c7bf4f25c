"""What a plan lets go is gone, all of it and nothing else, however often the run was killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest

from depot_ops.evidence import Status, worst
from depot_ops.postgres import base_backup, base_record, dump
from depot_ops.postgres.base_backup import check_chain
from depot_ops.postgres.base_record import find_base_backups
from depot_ops.postgres.drill_facts import read_drill_facts
from depot_ops.postgres.dump_record import find_backups, glance, record_path, trash_path
from depot_ops.postgres.prune import PruneError, prune
from depot_ops.postgres.retention import Action, KeepPolicy, Kind
from depot_ops.postgres.wal.inventory import check_continuity, take_stock

WEEK = KeepPolicy(minutes=0, days=7, weeks=0, months=0)
PRUNE = """
import sys
from pathlib import Path
from depot_ops.postgres.prune import Retention, prune
from depot_ops.postgres.retention import KeepPolicy
week = KeepPolicy(minutes=0, days=7, weeks=0, months=0)
sys.stdin.readline()
prune(Retention(Path(sys.argv[1]), Path(sys.argv[2]), week, week))
"""


def test_a_dry_run_says_what_would_go_and_touches_nothing(estate):
    estate.nights(40)
    before = estate.names()
    planned = prune(estate.retention(WEEK, WEEK), dry_run=True)
    assert len(planned.deleted) == 33
    assert planned.freed_bytes == 33 * 4
    assert estate.names() == before
    assert not (estate.backup_dir / "retention.jsonl").exists()
    done = prune(estate.retention(WEEK, WEEK))
    assert done.decisions == planned.decisions


def test_dumps_go_with_their_records_and_the_rest_stays_sound(estate):
    nights = estate.nights(40)
    prune(estate.retention(WEEK, WEEK))
    assert find_backups(estate.backup_dir) == nights[-7:]
    assert worst(glance(path) for path in nights[-7:]) is Status.HEALTHY
    assert estate.names() == {name for path in nights[-7:] for name in (path.name, record_path(path).name)}
    assert prune(estate.retention(WEEK, WEEK)).deleted == []


def test_each_database_has_its_own_dumps(estate):
    other = estate.dump(datetime(2025, 1, 1, tzinfo=UTC), "other")
    estate.nights(20)
    prune(estate.retention(WEEK, WEEK))
    assert other.exists()


def test_what_is_damaged_or_lost_or_of_a_later_version_stays_and_does_not_count(estate):
    nights = estate.nights(20)
    nights[-1].write_bytes(b"row")
    record_path(nights[-2]).unlink()
    nights[-3].unlink()
    record_path(nights[-4]).write_text('{"schema_version": 99}')
    prune(estate.retention(KeepPolicy(minutes=0, days=2, weeks=0, months=0), WEEK))
    assert find_backups(estate.backup_dir) == [*nights[-6:-4], *nights[-4:]]


def test_a_flipped_bit_in_the_newest_is_found_before_anything_goes_for_its_sake(estate):
    nights = estate.nights(20)
    for path in nights[-3:]:
        path.write_bytes(b"rowz")
    two = KeepPolicy(minutes=0, days=0, weeks=0, months=0, minimum=2)
    pruned = prune(estate.retention(two, two))
    assert find_backups(estate.backup_dir) == nights[-5:]
    assert "SHA-256" in pruned.decisions[-1].reason


def test_a_flipped_bit_in_an_older_one_lets_nothing_go_in_its_place(estate):
    nights = estate.nights(20)
    nights[-5].write_bytes(b"rowz")
    prune(estate.retention(WEEK, WEEK))
    assert find_backups(estate.backup_dir) == nights[-8:]


def test_a_dump_that_never_passed_its_checks_does_not_count(estate):
    nights = estate.nights(5)
    record = json.loads(record_path(nights[-1]).read_text())
    record_path(nights[-1]).write_text(json.dumps(record | {"validation": []}))
    prune(estate.retention(KeepPolicy(minutes=0, days=1, weeks=0, months=0, minimum=1), WEEK))
    assert find_backups(estate.backup_dir) == nights[-2:]


def test_chains_go_whole_and_the_log_that_only_they_needed_with_them_once_a_drill_has_passed(estate):
    chains = estate.weeks_of_chains(6)
    estate.log(100)
    estate.drill(chains[-1][3], "failed")
    pruned = prune(estate.retention(WEEK, WEEK))
    assert find_base_backups(estate.backup_dir) == [path for chain in chains[-2:] for path in chain]
    assert estate.archived() == list(range(101))
    assert "no drill" in next(d.reason for d in pruned.decisions if d.kind is Kind.WAL)
    estate.drill(chains[-1][3])
    prune(estate.retention(WEEK, WEEK))
    oldest = 10 + 4 * 7 * 2
    assert estate.archived() == list(range(oldest, 101))
    assert worst(check_chain(path) for path in find_base_backups(estate.backup_dir)) is Status.HEALTHY
    (stock,) = take_stock(estate.archive)
    assert stock.missing == ()
    assert check_continuity(estate.archive, f"0000000100000000000000{oldest:02X}").status is Status.HEALTHY


def test_a_damaged_newest_chain_keeps_an_older_one_alive(estate):
    chains = estate.weeks_of_chains(4)
    (chains[-1][0] / "base.tar.gz").write_bytes(b"archive of " + b"?" * len(chains[-1][0].name))
    minimum = KeepPolicy(minutes=0, days=0, weeks=0, months=0, minimum=2)
    pruned = prune(estate.retention(minimum, minimum))
    assert find_base_backups(estate.backup_dir) == [path for chain in chains[-3:] for path in chain]
    assert "damaged" in pruned.decisions[-1].reason


@pytest.mark.parametrize("running", ["dump", "base", "restore"])
def test_nothing_goes_while_a_backup_is_taken_or_restored(estate, running):
    estate.nights(20)
    estate.weeks_of_chains(4)
    before = estate.names()
    taken = {
        "dump": (dump.sole_writer, estate.backup_dir),
        "base": (base_backup.sole_writer, next((estate.backup_dir / "base").iterdir())),
        "restore": (base_record.kept_for_reading, estate.backup_dir),
    }
    lock, directory = taken[running]
    with lock(directory), pytest.raises(PruneError, match=r"another backup|a restore is reading"):
        prune(estate.retention(WEEK, WEEK))
    assert estate.names() == before
    assert prune(estate.retention(WEEK, WEEK)).deleted


def test_every_run_that_deletes_writes_down_what_and_why(estate):
    estate.nights(20)
    prune(estate.retention(WEEK, WEEK))
    prune(estate.retention(WEEK, WEEK))
    (line,) = (estate.backup_dir / "retention.jsonl").read_text().splitlines()
    written = json.loads(line)
    assert len(written["decisions"]) == 13
    assert {decision["action"] for decision in written["decisions"]} == {Action.DELETE}


def test_a_run_that_died_between_two_steps_is_finished(estate):
    nights = estate.nights(3)
    chains = estate.weeks_of_chains(2)
    nights[0].rename(trash_path(nights[0]))  # its record is still there
    assert find_backups(estate.backup_dir) == nights[1:]
    chains[0][6].rename(trash_path(chains[0][6]))
    prune(estate.retention())
    kept = {path.name for path in nights[1:]} | {record_path(path).name for path in nights[1:]}
    assert estate.names() == kept | {path.name for chain in chains for path in chain} - {chains[0][6].name}


@pytest.mark.parametrize("seed", range(6))
def test_kill_9_leaves_only_what_the_next_run_finishes(estate, seed):
    nights = estate.nights(200)
    chains = estate.weeks_of_chains(8)
    estate.log(140)
    estate.drill(chains[-1][0])
    arguments = [sys.executable, "-c", PRUNE, str(estate.backup_dir), str(estate.archive.root)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE) as process:
        assert process.stdin
        process.stdin.write(b"go\n")
        process.stdin.flush()
        journal = estate.backup_dir / "retention.jsonl"
        while not journal.exists():
            assert process.poll() is None
        time.sleep(random.Random(seed).uniform(0, 0.15))
        os.kill(process.pid, signal.SIGKILL)
    assert worst(glance(path) for path in find_backups(estate.backup_dir)) is Status.HEALTHY
    assert worst(check_chain(path) for path in find_base_backups(estate.backup_dir)) is Status.HEALTHY
    prune(estate.retention(WEEK, WEEK))
    kept = {path.name for path in nights[-7:]} | {record_path(path).name for path in nights[-7:]}
    assert estate.names() == kept | {path.name for chain in chains[-2:] for path in chain}
    assert estate.archived() == list(range(10 + 2 * 7 * 6, 141))


def test_a_directory_out_of_reach_is_no_empty_one(estate, tmp_path):
    retention = estate.retention()
    estate.backup_dir.rename(tmp_path / "moved")
    with pytest.raises(PruneError):
        prune(retention)


UNREADABLE = ["", "[]", "{}", "null", '{"result": "passed"}', '{"kind": "base", "finished_at": 1, "backup": []}']


@pytest.mark.parametrize("text", UNREADABLE)
def test_a_drill_that_cannot_be_read_proves_nothing(estate, text):
    base = estate.base(1)
    good = estate.drill(base)
    good.with_name("other.json").write_text(text)
    assert [(fact.base_label, fact.passed) for fact in read_drill_facts(estate.backup_dir)] == [(base.name, True)]
