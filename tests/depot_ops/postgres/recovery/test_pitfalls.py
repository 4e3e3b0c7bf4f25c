"""What PostgreSQL's own programs let pass: each is named here before anything is built on it."""

import shutil
import subprocess
from dataclasses import replace

import pytest

from depot_ops.evidence import Status
from depot_ops.local.ports import any_free
from depot_ops.postgres.base_backup import BaseBackupError, take_base_backup, verify_base_backup
from depot_ops.postgres.client_tools import client_environment
from depot_ops.postgres.recovery import restore
from depot_ops.postgres.recovery_plan import RestoreRefused


def recover(primary, to):
    cluster = primary.cluster
    return restore(to, primary.backup_dir, primary.archive_root, cluster.binaries, cluster.account)


@pytest.fixture(scope="module")
def primary(shared_primary):
    return shared_primary[0]


@pytest.fixture
def standby(primary, work_dir):
    """A server of its own that follows the primary."""
    cluster = replace(primary.cluster, home=work_dir / "s", port=any_free())
    cluster.home.mkdir(mode=0o711)
    cluster.account.own(cluster.home)
    subprocess.run(
        [cluster.binaries.path("pg_basebackup"), "--write-recovery-conf", "--checkpoint=fast", "-D", cluster.data],
        env=client_environment(primary.url),
        check=True,
    )
    cluster.account.own_tree(cluster.data)
    cluster.start()
    yield cluster
    cluster.stop()


def test_a_backup_from_a_standby_is_restored_once_its_log_is_archived(primary, standby, work_dir):
    primary.insert(1)
    backup = take_base_backup(standby.url(), primary.backup_dir, standby.binaries)
    assert verify_base_backup(backup, standby.binaries).status is Status.HEALTHY
    with pytest.raises(RestoreRefused):
        recover(primary, work_dir / "too-early")
    primary.insert(1)
    primary.archive_all()
    report = recover(primary, work_dir / "restored")
    assert report.backups == (backup.record.label,)
    assert report.last_commit_at is not None
    assert report.last_commit_at > backup.record.finished_at


def test_a_corrupted_full_under_an_incremental_is_refused_by_name(primary, work_dir, incremental):
    """pg_combinebackup would merge it, and say that all is well."""
    full = primary.back_up()
    primary.insert(1)
    primary.back_up(incremental)
    primary.archive_all()
    content = full.archive.read_bytes()
    middle = len(content) // 2
    full.archive.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    with pytest.raises(RestoreRefused, match=full.record.label):
        recover(primary, work_dir / "restored")
    assert not (work_dir / "restored").exists()


def test_a_pg_verifybackup_that_crashes_proves_nothing(primary, work_dir):
    bindir = work_dir / "bin"
    bindir.mkdir()
    for program in primary.cluster.binaries.bindir.iterdir():
        (bindir / program.name).symlink_to(program)
    (bindir / "pg_verifybackup").unlink()
    (bindir / "pg_verifybackup").write_text("#!/bin/sh\nkill -SEGV $$\n")
    (bindir / "pg_verifybackup").chmod(0o755)
    crashing = replace(primary.cluster.binaries, bindir=bindir)
    assert verify_base_backup(primary.back_up(), crashing).status is Status.UNHEALTHY
    with pytest.raises(BaseBackupError, match="pg_verifybackup"):
        take_base_backup(primary.url, work_dir / "backups", crashing)
    assert [path for path in work_dir.glob("backups/base/*/*") if path.name != ".lock"] == []


def test_after_a_switch_of_checksums_a_full_backup_is_asked_for(primary, incremental):
    """The last one here: it leaves the primary as no other test wants it."""
    primary.back_up()
    cluster = primary.cluster
    cluster.stop()
    subprocess.run([cluster.binaries.path("pg_checksums"), "--disable", "-D", cluster.data], check=True)
    cluster.start()
    with pytest.raises(BaseBackupError, match="take a full one"):
        primary.back_up(incremental)
    shutil.rmtree(primary.backup_dir)
