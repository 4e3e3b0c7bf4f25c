"""Dumps and recovery to a moment with other versions of PostgreSQL, where this machine has them as Debian packages."""

import shutil
import tempfile
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import psycopg
import pytest

from depot_ops.local.ports import any_free
from depot_ops.postgres.accounts import runnable_binaries, server_account
from depot_ops.postgres.base_backup import take_base_backup
from depot_ops.postgres.binaries import Binaries, BinariesNotFound, find_binaries
from depot_ops.postgres.cluster import Cluster, archiving
from depot_ops.postgres.dump import take_logical_backup
from depot_ops.postgres.dump_checks import verify
from depot_ops.postgres.dump_restore import restore_dump
from depot_ops.postgres.recovery import restore
from depot_ops.postgres.recovery_plan import Target
from depot_ops.postgres.wal.archive import WalArchive
from depot_ops.postgres.wal.collector import collect
from depot_ops.postgres.wal.progress import check_freshness


def installed() -> list[Binaries]:
    found = []
    for bindir in sorted(Path("/usr/lib/postgresql").glob("*/bin")):
        try:
            found.append(find_binaries(bindir))
        except BinariesNotFound:
            continue  # one that the depot does not support, or its client programs alone
    return found


@pytest.mark.parametrize(
    "binaries",
    installed() or [pytest.param(None, marks=pytest.mark.skip("no supported PostgreSQL is in /usr/lib/postgresql"))],
    ids=lambda binaries: binaries and str(binaries.major),
)
def test_a_dump_and_a_moment_come_back(binaries, reachable_dir):
    account = server_account()
    binaries = runnable_binaries(binaries, account)
    home = Path(tempfile.mkdtemp(dir=reachable_dir))
    home.chmod(0o711)
    settings = {**archiving(home / "c", binaries.major), "fsync": "off", "wal_init_zero": "off"}
    cluster = Cluster(home / "c", any_free(), "only-for-tests", binaries, account, settings)
    cluster.initialize()
    cluster.start()
    try:
        with psycopg.connect(cluster.url(), autocommit=True) as primary:
            primary.execute("CREATE TABLE numbered (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY)")
            backup = take_base_backup(cluster.url(), home / "backups", binaries)
            moment = insert(primary)
            archive = WalArchive(home / "archive", backup.record.system_identifier)
            insert(primary)
        fresh = check_freshness(cluster.url(), archive, collect=lambda: collect(cluster.wal_spool, archive.root))
        assert fresh.status == "healthy", fresh.detail
        dump = home / "backups" / take_logical_backup(cluster.url(), home / "backups", binaries).file
        assert {finding.status for finding in verify(dump, binaries)} == {"healthy"}
        assert restore_dump(dump, cluster.url(), "again", binaries).row_counts == {"public.numbered": 2}
    finally:
        cluster.stop()
    what = (home / "backups", archive.root, binaries, account, Target.at_time(moment))
    (home / "restored").mkdir(mode=0o711)
    account.own(home / "restored")
    restore(home / "restored" / "data", *what, verify=True)
    restored = replace(cluster, home=home / "restored", port=any_free())
    restored.start()
    try:
        with psycopg.connect(restored.url()) as connection:
            assert connection.execute("SELECT id FROM numbered").fetchall() == [(1,)]
    finally:
        restored.stop()
    shutil.rmtree(home)


def insert(primary: psycopg.Connection) -> datetime:
    """Commit a row, and return a moment at which it is there and no later one."""
    primary.execute("INSERT INTO numbered DEFAULT VALUES")
    return primary.execute("SELECT clock_timestamp()").fetchall()[0][0]
