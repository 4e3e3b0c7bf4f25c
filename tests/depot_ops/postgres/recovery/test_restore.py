"""A restore gives exactly the rows of its target, or it is refused with what is wrong: never anything between."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from depot_ops.drills.record import DrillKind, DrillResult, begin, publish
from depot_ops.local.ports import any_free
from depot_ops.postgres import recovery
from depot_ops.postgres.base_backup import INCREMENTAL_SINCE
from depot_ops.postgres.base_record import BackupsBeingRead, BaseBackupKind, nobody_reads
from depot_ops.postgres.prune import Retention, prune
from depot_ops.postgres.recovery import RestoreReport, TargetNotReached, restore
from depot_ops.postgres.recovery_plan import RestoreError, RestoreRefused, Target, TargetKind
from depot_ops.postgres.retention import KeepPolicy, Kind
from depot_ops.postgres.wal.inventory import check_continuity, check_intact
from depot_ops.postgres.wal.names import parse_lsn, parse_wal_name

LATEST = Target()
# `make torture` takes hundreds.
FIRST_SEED, SEEDS = int(os.environ.get("SEED", "0")), int(os.environ.get("RESTORE_SEEDS", "4"))
KILLS = int(os.environ.get("RESTORE_KILLS", "2"))
RESTORE = """
import sys
from pathlib import Path
from depot_ops.postgres.accounts import server_account
from depot_ops.postgres.binaries import find_binaries
from depot_ops.postgres.recovery import restore
print("ready", flush=True)
restore(*map(Path, sys.argv[1:4]), find_binaries(Path(sys.argv[4])), server_account())
"""


def make_home(primary, work_dir) -> None:
    """Where the restored data directory goes: a server there keeps its socket beside it."""
    home = work_dir / "restored"
    subprocess.run(["rm", "-rf", home], check=True)
    home.mkdir(mode=0o711)
    primary.cluster.account.own(home)


@pytest.fixture
def restored_rows(primary, work_dir):
    """Start what was restored as anybody would, on a port of its own, and read it."""

    def read(primary) -> list[int]:
        restored = replace(primary.cluster, home=work_dir / "restored", port=any_free())
        restored.start()
        try:
            with psycopg.connect(restored.url(), autocommit=True) as connection:
                assert connection.execute("SELECT pg_is_in_recovery()").fetchall() == [(False,)]
                assert connection.execute("SHOW archive_mode").fetchall() == [("off",)]
                connection.execute("INSERT INTO numbered (note) VALUES ('writable')")
                found = connection.execute("SELECT id FROM numbered WHERE note IS NULL ORDER BY id").fetchall()
                return [row for (row,) in found]
        finally:
            restored.stop()

    make_home(primary, work_dir)
    return read


@pytest.fixture
def recover(primary, work_dir):
    def run(target: Target = LATEST, **options) -> RestoreReport:
        to = work_dir / "restored" / "data"
        binaries, account = primary.cluster.binaries, primary.cluster.account
        return restore(to, primary.backup_dir, primary.archive_root, binaries, account, target, **options)

    return run


def left_behind(work_dir) -> list[str]:
    return [path.name for path in (work_dir / "restored").iterdir()]


def test_the_latest_from_a_chain(primary, recover, restored_rows, incremental, monkeypatch):
    primary.insert(2)
    primary.back_up()
    primary.insert(2)
    primary.back_up(incremental)
    primary.insert(2)
    primary.archive_all()
    said: list[str] = []

    def staged_in_peace(*arguments) -> None:
        with pytest.raises(BackupsBeingRead), nobody_reads(primary.backup_dir):
            pass
        stage(*arguments)

    stage = recovery._stage
    monkeypatch.setattr(recovery, "_stage", staged_in_peace)
    report = recover(verify=True, say=said.append)
    with nobody_reads(primary.backup_dir):
        assert report.left_out == ()
    assert [step.split()[0] for step in said] == ["fetching", "replaying", "checking"]
    assert len(report.backups) == 2
    assert (report.recovered_timeline, report.new_timeline, report.verified) == (1, 2, True)
    assert report.last_commit_at
    assert restored_rows(primary) == primary.rows() == [1, 2, 3, 4, 5, 6]
    assert not list(primary.archive.directory.rglob("00000002*"))


def test_a_time_gives_what_was_committed_by_then(primary, recover, restored_rows):
    primary.back_up()
    primary.insert(3)
    moment = primary.insert(2)
    primary.insert(4)
    primary.archive_all()
    report = recover(Target.at_time(moment))
    assert restored_rows(primary) == [1, 2, 3, 4, 5]
    assert report.last_commit_at <= moment


def test_the_base_is_chosen_for_the_target(primary, recover, restored_rows):
    first = primary.back_up()
    moment = primary.insert(2)
    primary.insert(1)
    primary.back_up()
    primary.archive_all()
    assert recover(Target.at_time(moment)).backups == (first.record.label,)
    assert restored_rows(primary) == [1, 2]


def test_a_position_gives_what_was_written_before_it(primary, recover, restored_rows):
    primary.back_up()
    primary.insert(3)
    ((position,),) = primary.execute("SELECT pg_current_wal_insert_lsn()::text")
    primary.insert(3)
    primary.archive_all()
    report = recover(Target(TargetKind.LSN, position))
    assert parse_lsn(report.ended_lsn) == parse_lsn(position)
    assert restored_rows(primary) == [1, 2, 3]


def test_a_restore_point_also_before_the_newest_backup(primary, recover, restored_rows):
    primary.back_up()
    primary.insert(2)
    primary.execute("SELECT pg_create_restore_point('before it''s gone')")
    primary.insert(2)
    primary.back_up()
    primary.archive_all()
    recover(Target(TargetKind.NAME, "before it's gone"))
    assert restored_rows(primary) == [1, 2]


def test_a_target_before_the_end_of_the_backup_is_refused(primary, recover, restored_rows, work_dir):
    moment = primary.insert(1)
    ((position,),) = primary.execute("SELECT pg_current_wal_insert_lsn()::text")
    primary.back_up()
    primary.insert(1)
    primary.archive_all()
    for target in (Target.at_time(moment), Target(TargetKind.LSN, position)):
        with pytest.raises(RestoreRefused, match="before the end of the oldest base backup"):
            recover(target)
    assert left_behind(work_dir) == []


def test_a_target_after_the_last_commit_is_refused(primary, recover, restored_rows, work_dir):
    """Also of an idle database: nothing says that no commit before the target is missing."""
    primary.back_up()
    primary.insert(1)
    primary.archive_all()
    with pytest.raises(TargetNotReached, match="--latest"):
        recover(Target.at_time(datetime.now(UTC) + timedelta(hours=1)))
    with pytest.raises(RestoreRefused, match="behind the end of the archive"):
        recover(Target(TargetKind.LSN, "FF/0"))
    with pytest.raises(TargetNotReached):
        recover(Target(TargetKind.NAME, "never made"))
    assert left_behind(work_dir) == []


@pytest.mark.parametrize("lost", ["file", "file and record"])
def test_a_gap_in_the_middle_is_refused_by_name(primary, recover, restored_rows, lost, work_dir):
    primary.back_up()
    for _ in range(4):
        primary.insert(1)
        primary.archive_all()
    segments = [name for name in primary.archive.names() if name.is_whole_segment]
    victim = segments[-2]
    primary.archive.file_path(victim).unlink()
    if "record" in lost:
        primary.archive.record_path(victim).unlink()
    with pytest.raises(RestoreRefused, match=victim.name):
        recover()
    assert left_behind(work_dir) == []


def damage(path, good, chance) -> None:
    """Flip a bit, cut the end off, put zeros over a part, or take the whole file away."""
    place = chance.randrange(len(good))
    match chance.choice(["flip", "flip", "cut", "zero", "remove"]):
        case "flip":
            path.write_bytes(good[:place] + bytes([good[place] ^ 1 << chance.randrange(8)]) + good[place + 1 :])
        case "cut":
            path.write_bytes(good[:place])
        case "zero":
            zeros = bytes(min(8192, len(good) - place))
            path.write_bytes(good[:place] + zeros + good[place + len(zeros) :])
        case "remove":
            path.unlink()


def names_it(path, message: str) -> bool:
    """A segment by its full name; of a base backup its label and the file, or how the file could not be used."""
    name = parse_wal_name(path.name.split(".gz")[0].split(".json")[0])
    if name is not None:
        return name.name in message
    return path.parent.name in message and (path.name in message or "could not be unpacked" in message)


def test_random_damage_is_refused_by_name_or_harmless(primary, recover, restored_rows, work_dir):
    primary.back_up()
    primary.insert(1)
    has_chains = primary.cluster.binaries.major >= INCREMENTAL_SINCE
    primary.back_up(BaseBackupKind.INCREMENTAL if has_chains else BaseBackupKind.FULL)
    for _ in range(2):
        primary.insert(1)
        primary.archive_all()
    files = sorted(
        path
        for root in (primary.backup_dir, primary.archive_root)
        for path in root.rglob("*")
        if path.is_file() and path.stat().st_size and not path.name.startswith(".")
    )
    refused = 0
    for seed in range(FIRST_SEED, FIRST_SEED + SEEDS):
        chance = random.Random(seed)
        path = chance.choice(files)
        good = path.read_bytes()
        damage(path, good, chance)
        try:
            recover()
            assert restored_rows(primary) == primary.rows()
            make_home(primary, work_dir)
        except RestoreError as error:
            refused += 1
            assert names_it(path, str(error)), (seed, path, str(error))
            assert left_behind(work_dir) == []
        path.write_bytes(good)
    assert refused


def test_after_a_promotion_the_new_timeline_is_followed(primary, recover, restored_rows):
    primary.back_up()
    primary.insert(2)
    cluster = primary.cluster
    cluster.stop()
    (cluster.data / "recovery.signal").touch()
    cluster.account.own(cluster.data / "recovery.signal")
    with (cluster.data / "postgresql.auto.conf").open("a") as configuration:
        configuration.write("restore_command = 'exit 1'\n")
    cluster.start()
    deadline = time.monotonic() + 30
    while primary.execute("SELECT pg_is_in_recovery()") != [(False,)]:
        assert time.monotonic() < deadline
    primary.insert(2)
    primary.archive_all()
    names = {name.name for name in primary.archive.names()}
    assert "00000002.history" in names
    report = recover()
    assert (report.recovered_timeline, report.new_timeline) == (2, 3)
    assert len(restored_rows(primary)) == 4
    assert restored_rows(primary) == primary.rows()


def test_what_is_there_is_not_touched(recover, work_dir):
    occupied = work_dir / "restored" / "data"
    occupied.mkdir(parents=True)
    with pytest.raises(RestoreRefused, match="exists"):
        recover()
    assert list(occupied.iterdir()) == []


def test_a_restore_takes_nothing_of_production_along(primary, recover, restored_rows, work_dir):
    """Settings by which a recovery would stream from the primary, or wait for a standby."""
    for name, value in {
        "primary_conninfo": "host=127.0.0.1 port=1",
        "primary_slot_name": "slot",
        "synchronous_standby_names": "",
        "recovery_target_time": "",
    }.items():
        primary.execute(f"ALTER SYSTEM SET {name} = '{value}'")
    primary.execute("SELECT pg_create_physical_replication_slot('slot', true)")
    primary.back_up()
    primary.insert(1)
    primary.archive_all()
    recover()
    assert not list((work_dir / "restored" / "data" / "pg_replslot").iterdir())
    assert restored_rows(primary) == [1]


def test_too_small_a_disk_is_refused(primary, recover, work_dir):
    if os.geteuid() != 0:
        pytest.skip("only root mounts a small disk")
    primary.back_up()
    primary.archive_all()
    (work_dir / "restored").mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32m", "none", work_dir / "restored"], check=False
    ).returncode:
        pytest.skip("this machine mounts nothing")
    try:
        with pytest.raises(RestoreRefused, match="free bytes"):
            recover()
        assert left_behind(work_dir) == []
    finally:
        subprocess.run(["umount", work_dir / "restored"], check=True)


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + KILLS))
def test_kill_9_leaves_no_cluster_and_the_next_run_works(primary, recover, restored_rows, work_dir, seed):
    primary.back_up()
    primary.insert(2)
    primary.archive_all()
    to = work_dir / "restored" / "data"
    arguments = [to, primary.backup_dir, primary.archive_root, primary.cluster.binaries.bindir]
    process = subprocess.Popen([sys.executable, "-c", RESTORE, *map(str, arguments)], stdout=subprocess.PIPE)
    with process:
        assert process.stdout and process.stdout.readline()
        time.sleep(random.Random(seed).uniform(0.1, 2.0))
        os.kill(process.pid, signal.SIGKILL)
    if to.exists():
        assert restored_rows(primary) == [1, 2]
        return
    deadline = time.monotonic() + 60
    while True:
        try:
            recover()
            break
        except RestoreError as error:
            assert "killed one ends" in str(error) and time.monotonic() < deadline, error
            time.sleep(0.1)
    assert restored_rows(primary) == [1, 2]
    assert set(left_behind(work_dir)) <= {"data", "server.log"}


def test_random_moments_have_exactly_their_rows(primary, recover, restored_rows, work_dir):
    """The truth is what the server itself says about each commit."""
    primary.execute("ALTER SYSTEM SET track_commit_timestamp = on")
    primary.cluster.stop()
    primary.cluster.start()
    backup = primary.back_up()
    primary.insert(40)
    commits = primary.execute("SELECT id, pg_xact_commit_timestamp(xmin) FROM numbered ORDER BY 2")
    primary.archive_all()
    chance = random.Random(FIRST_SEED)
    for _ in range(max(3, SEEDS // 5)):
        low, high = backup.record.finished_at, commits[-2][1]
        moment = low + (high - low) * chance.random()
        recover(Target.at_time(moment))
        assert restored_rows(primary) == [row for row, at in commits if at <= moment]
        make_home(primary, work_dir)


def test_what_retention_keeps_restores_to_the_last_row(primary, recover, restored_rows):
    old = primary.back_up()
    primary.insert(2)
    primary.archive_all()
    kept = primary.back_up()
    primary.insert(3)
    primary.archive_all()
    drill = begin(DrillKind.BASE, "test")
    drill.backup, drill.result, drill.finished_at = kept.record.label, DrillResult.PASSED, datetime.now(UTC)
    publish(drill, primary.backup_dir)
    newest = KeepPolicy(minutes=0, days=0, weeks=0, months=0, minimum=1)
    pruned = prune(Retention(primary.backup_dir, primary.archive_root, newest, newest))
    assert [decision.kind for decision in pruned.deleted] == [Kind.BASE_CHAIN, Kind.WAL]
    assert not old.path.exists()
    assert old.record.start_segment not in {name.name for name in primary.archive.names()}
    assert check_continuity(primary.archive, kept.record.start_segment).status == "healthy"
    assert check_intact(primary.archive, deep=True).status == "healthy"
    recover()
    assert restored_rows(primary) == primary.rows() == [1, 2, 3, 4, 5]
