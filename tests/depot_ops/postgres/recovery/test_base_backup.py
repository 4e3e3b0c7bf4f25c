"""A base backup has its name when it is complete and verified, or it is not there."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from depot_ops.evidence import Status
from depot_ops.postgres.base_backup import BaseBackupError, BaseBackupRunning, take_base_backup, verify_base_backup
from depot_ops.postgres.base_record import (
    BaseBackupKind,
    BaseRecordUnusable,
    chain_of,
    find_base_backups,
    load_base_backup,
)
from depot_ops.postgres.wal.names import parse_lsn

TAKE = """
import sys
from pathlib import Path
from depot_ops.postgres.base_backup import take_base_backup
from depot_ops.postgres.base_record import BaseBackupKind
from depot_ops.postgres.binaries import find_binaries
print("ready", flush=True)
take_base_backup(sys.argv[1], Path(sys.argv[2]), find_binaries(Path(sys.argv[3])), BaseBackupKind(sys.argv[4]))
"""


def names(primary) -> list[str]:
    return [path.name for path in (primary.backup_dir / "base").glob("*/*")]


def test_a_full_backup_and_what_is_known_of_it(primary):
    before = primary.execute("SELECT clock_timestamp()")[0][0]
    backup = primary.back_up()
    assert find_base_backups(primary.backup_dir) == [backup.path]
    assert load_base_backup(backup.path) == backup
    record = backup.record
    assert record.kind is BaseBackupKind.FULL
    assert record.system_identifier == primary.archive.system_identifier
    assert parse_lsn(record.start_lsn) < parse_lsn(record.stop_lsn)
    assert record.started_at >= before
    assert before < record.finished_at <= primary.execute("SELECT clock_timestamp()")[0][0]
    assert record.stored_size_bytes < record.size_bytes / 2
    assert (record.timeline, record.superuser) == (1, "postgres")
    assert verify_base_backup(backup, primary.cluster.binaries).status is Status.HEALTHY
    assert primary.execute("SELECT count(*) FROM pg_replication_slots") == [(0,)]


def test_a_chain(primary, incremental):
    full = primary.back_up()
    primary.insert(3)
    first = primary.back_up(incremental)
    second = primary.back_up(incremental)
    assert chain_of(second) == [full, first, second]
    assert first.record.stored_size_bytes < full.record.stored_size_bytes / 2
    for element in (full, first, second):
        assert verify_base_backup(element, primary.cluster.binaries).status is Status.HEALTHY
    (full.path / "backup.json").unlink()
    with pytest.raises(BaseRecordUnusable, match=full.record.label):
        chain_of(second)
    with pytest.raises(BaseBackupError, match="full"):
        primary.back_up(incremental)


def test_an_incremental_one_needs_something_to_build_on(primary, incremental):
    with pytest.raises(BaseBackupError, match="full one"):
        primary.back_up(incremental)
    assert not [name for name in names(primary) if name != ".lock"]


def test_without_summaries_it_says_what_to_set(primary, incremental):
    primary.execute("ALTER SYSTEM SET summarize_wal = off")
    primary.execute("SELECT pg_reload_conf()")
    primary.back_up()
    with pytest.raises(BaseBackupError, match="summarize_wal = on"):
        primary.back_up(incremental)


def test_random_damage_is_found(primary):
    backup = primary.back_up()
    for seed in range(12):
        chance = random.Random(seed)
        path = chance.choice([backup.archive, backup.manifest])
        good = path.read_bytes()
        bad = bytearray(good)
        bad[chance.randrange(len(bad))] ^= 1 << chance.randrange(8)
        path.write_bytes(bad if chance.random() < 0.7 else bad[: chance.randrange(len(bad))])
        finding = verify_base_backup(backup, primary.cluster.binaries)
        assert finding.status is Status.UNHEALTHY
        assert str(path) in finding.detail
        path.write_bytes(good)
    backup.archive.unlink()
    assert "is gone" in verify_base_backup(backup, primary.cluster.binaries).detail


def test_a_flipped_bit_in_the_record_is_found_or_harmless(primary):
    backup = primary.back_up()
    path = backup.path / "backup.json"
    good = path.read_bytes()
    for position in range(len(good)):
        bad = bytearray(good)
        bad[position] ^= 1 << position % 7
        path.write_bytes(bad)
        try:
            assert load_base_backup(backup.path) == backup
        except BaseRecordUnusable as error:
            assert str(path) in str(error)


def is_at_work(primary) -> bool:
    return any(name.startswith(".partial") for name in names(primary))


@pytest.mark.parametrize("seed", range(int(os.environ.get("RESTORE_KILLS", "1"))))
@pytest.mark.parametrize("kind", ["full", "incremental"])
def test_kill_9_leaves_no_backup_and_the_next_run_cleans_up(primary, request, kind, seed):
    if kind == "incremental":
        request.getfixturevalue("incremental")
        primary.back_up()
    arguments = [primary.url, str(primary.backup_dir), str(primary.cluster.binaries.bindir), kind]
    process = subprocess.Popen([sys.executable, "-c", TAKE, *arguments], stdout=subprocess.PIPE)
    with process:
        assert process.stdout and process.stdout.readline()
        deadline = time.monotonic() + 30
        while not is_at_work(primary):
            assert process.poll() is None
            assert time.monotonic() < deadline
        time.sleep(random.Random(seed).uniform(0.0, 0.1))
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    for path in find_base_backups(primary.backup_dir) if primary.backup_dir.exists() else []:
        assert verify_base_backup(load_base_backup(path), primary.cluster.binaries).status is Status.HEALTHY
    deadline = time.monotonic() + 30
    while True:
        try:
            primary.back_up()
            break
        except BaseBackupRunning:  # what the killed one started ends by itself
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert not [name for name in names(primary) if name.startswith(".partial")]


def test_a_server_out_of_reach(tmp_path, cluster):
    with pytest.raises(BaseBackupError) as error:
        take_base_backup("postgresql://postgres:secret-word@127.0.0.1:1/postgres", tmp_path, cluster.binaries)
    assert "secret-word" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_programs_of_another_version(tmp_path, cluster):
    other = replace(cluster.binaries, major=cluster.binaries.major - 1, version="older")
    with pytest.raises(BaseBackupError, match="DEPOT_PG_BINDIR"):
        take_base_backup(cluster.url(), tmp_path, other)


def test_tablespaces_are_refused_not_lost(primary, work_dir):
    space = work_dir / "space"
    space.mkdir()
    primary.cluster.account.own(space)
    primary.execute(f"CREATE TABLESPACE other LOCATION '{space}'")
    with pytest.raises(BaseBackupError, match="tablespace"):
        primary.back_up()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small disk")
def test_a_full_disk_leaves_nothing(primary):
    primary.backup_dir.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", primary.backup_dir], check=False)
    if mounted.returncode != 0:
        pytest.skip("this machine mounts nothing")
    try:
        with pytest.raises(BaseBackupError, match="no room is left"):
            primary.back_up()
        assert [name for name in names(primary) if name != ".lock"] == []
    finally:
        subprocess.run(["umount", primary.backup_dir], check=True)
