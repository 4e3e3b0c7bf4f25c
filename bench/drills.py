"""A drill of a base backup and the log behind it, beside what a person would type for the same recovery."""

import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from bench.backups import FILL, ROWS_OF_A_GIGABYTE, add_ratio
from bench.results import Results, timed
from depot_api.database.bootstrap import ROLES
from depot_ops.drills.record import DrillKind, DrillRecord, DrillResult
from depot_ops.drills.run import run_drill
from depot_ops.drills.site import Site
from depot_ops.local.ports import any_free
from depot_ops.postgres.accounts import runnable_binaries, server_account
from depot_ops.postgres.base_backup import take_base_backup
from depot_ops.postgres.base_record import BaseBackup, BaseBackupKind, chain_of
from depot_ops.postgres.binaries import find_binaries
from depot_ops.postgres.client_tools import client_environment
from depot_ops.postgres.cluster import Cluster, archiving
from depot_ops.postgres.wal.archive import FILE_SUFFIX, WalArchive
from depot_ops.postgres.wal.collector import collect
from depot_ops.postgres.wal.progress import check_freshness

PASSWORD = "only-for-the-bench"
LOG_BYTES_OF_TWO_GIGABYTES = 300 << 20


def bench_drills(results: Results, work: Path, gigabytes: float, rounds: int) -> None:
    """`gigabytes` is two in a full run."""
    account = server_account()
    binaries = runnable_binaries(find_binaries(), account)
    home = work / "drilled"
    settings = {**archiving(home, binaries.major), "max_wal_size": "8GB", "autovacuum": "off"}
    cluster = Cluster(home, any_free(), PASSWORD, binaries, account, settings)
    cluster.initialize()
    cluster.start()
    try:
        make_depot(cluster)
        backup = fill_and_back_up(cluster, work, gigabytes)
        site = site_of(cluster, work)
        drills, recoveries = [], []
        for _ in range(rounds):
            recoveries.append(timed(lambda: recover_by_hand(cluster, work, backup)))
            shutil.rmtree(work / "hand")
            with collecting(cluster, site.archive_root):
                record = run_drill(DrillKind.BASE, site)
            assert record.result is DrillResult.PASSED, record.reason
            drills.append(record)
    finally:
        cluster.stop()
    tell(results, backup, drills, recoveries)


@contextmanager
def collecting(cluster: Cluster, archive_root: Path) -> Iterator[None]:
    """As `depot-ops wal collect` does it."""
    stop = threading.Event()

    def collect_on() -> None:
        while not stop.wait(0.1):
            collect(cluster.wal_spool, archive_root)

    thread = threading.Thread(target=collect_on)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def make_depot(cluster: Cluster) -> None:
    environment = {
        **os.environ,
        "DEPOT_BOOTSTRAP_URL": cluster.url(),
        **{f"{role.upper()}_PASSWORD": PASSWORD for role in ROLES},
        "DATABASE_OWNER_URL": cluster.url("depot", "depot_owner"),
    }
    for command in ("bootstrap", "upgrade"):
        subprocess.run([sys.executable, "-m", "depot_api.database", command], env=environment, check=True)


def fill_and_back_up(cluster: Cluster, work: Path, gigabytes: float) -> BaseBackup:
    """A full backup and an incremental one, and the log behind them in the archive."""
    backups = work / "drilled-backups"
    with psycopg.connect(cluster.url("depot"), autocommit=True) as connection:
        connection.execute(FILL.replace("%s", str(int(gigabytes * ROWS_OF_A_GIGABYTE))))
        connection.execute("VACUUM (FREEZE) filler")
        take_base_backup(cluster.url(), backups, cluster.binaries)
        connection.execute("UPDATE filler SET kind = 0 WHERE id %% 100 = 0", [])
        backup = take_base_backup(cluster.url(), backups, cluster.binaries, BaseBackupKind.INCREMENTAL)
        wanted, part = backup.record.stop_lsn, 0
        behind = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), %s) > %s"
        while not connection.execute(behind, [wanted, LOG_BYTES_OF_TWO_GIGABYTES * gigabytes / 2]).fetchall()[0][0]:
            connection.execute("UPDATE filler SET kind = kind + 1 WHERE id %% 1000 = %s", [part])
            part += 1
    archive = WalArchive(work / "drilled-archive", backup.record.system_identifier)
    fresh = check_freshness(cluster.url(), archive, collect=lambda: collect(cluster.wal_spool, archive.root))
    assert fresh.status == "healthy", fresh.detail
    return backup


def site_of(cluster: Cluster, work: Path) -> Site:
    """Where the canary is forced at once: how long production's archiving takes is not measured here."""
    store = work / "drilled-store"
    store.mkdir()
    return Site(
        ops_url=cluster.url("depot", "depot_ops"),
        replication_url=cluster.url(),
        backup_dir=work / "drilled-backups",
        archive_root=work / "drilled-archive",
        drill_dir=work / "drill",
        stores=(store,),
        blob_shards=1,
        rpo_objective_seconds=0.0,
        stream=None,
        copy=None,
        binaries=cluster.binaries,
        account=cluster.account,
        say=lambda _: None,
    )


def recover_by_hand(cluster: Cluster, work: Path, backup: BaseBackup) -> None:
    """Unpack with tar, pg_combinebackup, and let the server fetch and replay the log until it takes writes."""
    hand = work / "hand"
    hand.mkdir(mode=0o711)
    trees = []
    for element in chain_of(backup):
        tree = hand / element.record.label
        tree.mkdir()
        subprocess.run(["tar", "-xzf", element.archive, "-C", tree], check=True)
        shutil.copy(element.manifest, tree)
        trees.append(tree)
    data = hand / "data"
    if len(trees) > 1:
        combine = [cluster.binaries.path("pg_combinebackup"), *trees, "--output", data]
        subprocess.run(combine, check=True, env=client_environment())
    else:
        trees[0].rename(data)
    fetch = f"gunzip < {work}/drilled-archive/{backup.record.system_identifier}/$(echo %f | cut -c1-8)/%f{FILE_SUFFIX}"
    with (data / "postgresql.auto.conf").open("a") as configuration:
        configuration.write(f"restore_command = '{fetch} > %p'\narchive_mode = off\nlisten_addresses = ''\n")
        configuration.write(f"unix_socket_directories = '{hand}'\nport = 5432\nhot_standby = off\n")
    (data / "recovery.signal").touch()
    (hand / "hba").write_text("local all all trust\n")
    for tree in (hand, work / "drilled-archive"):
        cluster.account.own_tree(tree)
    run(cluster, "start", "--wait", f"--pgdata={data}", f"--log={hand}/log", f"--options=-c hba_file={hand}/hba")
    while not serves(hand):  # pg_ctl returns while it still replays
        time.sleep(0.05)
    run(cluster, "stop", "--mode=immediate", f"--pgdata={data}")


def serves(socket: Path) -> bool:
    try:
        with psycopg.connect(host=str(socket), port=5432, user="postgres", dbname="depot") as restored:
            restored.execute("SELECT count(*) FROM assets")
    except psycopg.OperationalError:
        return False
    return True


def run(cluster: Cluster, *arguments: str) -> None:
    command = [cluster.binaries.path("pg_ctl"), *arguments, "--silent", "--timeout=600"]
    subprocess.run(command, check=True, cwd="/", env=client_environment(), **cluster.account.process_owner())


def tell(results: Results, backup: BaseBackup, drills: list[DrillRecord], recoveries: list[float]) -> None:
    def median(figure: str) -> float:
        return statistics.median(float(drill.figures[figure]) for drill in drills)

    gigabytes = sum(element.record.size_bytes for element in chain_of(backup)) / 1e9
    what = f"drill of {gigabytes:.1f} GB and {drills[-1].figures['wal_segments']} segments"
    ours = [float(drill.figures["rto_seconds"]) for drill in drills]
    add_ratio(results, what, ours, "tar, pg_combinebackup, pg_ctl", recoveries, "≤ 1.3")
    parts = ", ".join(f"{part} {median(part + '_seconds'):.1f} s" for part in ("fetch", "replay", "open"))
    results.add("of it", parts, "")
    results.add("what it proves beyond that, apart", f"{median('verify_seconds'):.1f} s", "")
