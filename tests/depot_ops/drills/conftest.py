"""A depot whose primary archives, with content in a store and a mirror, its backups and a place to drill them."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from depot_api.blobstore.store import BlobStore
from depot_api.database.bootstrap import ROLES
from depot_ops.drills.record import DrillKind, DrillRecord
from depot_ops.drills.run import run_drill
from depot_ops.drills.site import Site
from depot_ops.local.ports import any_free
from depot_ops.postgres.accounts import runnable_binaries, server_account
from depot_ops.postgres.base_backup import take_base_backup
from depot_ops.postgres.base_record import BaseBackup, BaseBackupKind
from depot_ops.postgres.binaries import find_binaries
from depot_ops.postgres.cluster import Cluster, archiving
from depot_ops.postgres.dump import take_logical_backup
from depot_ops.postgres.wal.archive import WalArchive
from depot_ops.postgres.wal.collector import collect
from depot_ops.postgres.wal.progress import check_freshness

PASSWORD = "only-for-tests"
PATHS = 40
# Triggers check what these statements make right by construction.
TABLES = ("projects", "branches", "changelists", "asset_versions", "branch_heads", "project_blobs", "assets")
SEED = """
WITH author AS (INSERT INTO users (username) VALUES ('artist') RETURNING id),
project AS (INSERT INTO projects (name, created_by) SELECT 'drilled', id FROM author RETURNING id),
branch AS (
    INSERT INTO branches (project_id, name, head_no, created_by)
    SELECT project.id, 'main', 1, author.id FROM project, author RETURNING id),
changelist AS (
    INSERT INTO changelists (project_id, branch_id, author_id, status, number, items_count, submitted_at)
    SELECT project.id, branch.id, author.id, 'submitted', 1, cardinality(%(hashes)s::bytea[]), now()
    FROM project, branch, author RETURNING id),
content AS MATERIALIZED (
    SELECT sha256, 'content/' || n AS path, uuid_v7() AS asset_id
    FROM unnest(%(hashes)s::bytea[]) WITH ORDINALITY AS u (sha256, n)),
referred AS (INSERT INTO project_blobs (project_id, sha256) SELECT project.id, sha256 FROM content, project),
asset AS (
    INSERT INTO assets (id, project_id, path_key, path, last_version, created_by)
    SELECT asset_id, project.id, path, path, 1, author.id FROM content, project, author),
version AS (
    INSERT INTO asset_versions (project_id, asset_id, number, sha256, size_bytes, action, branch_id, changelist_id,
                                changelist_no, author_id)
    SELECT project.id, asset_id, 1, sha256, 1, 'add', branch.id, changelist.id, 1, author.id
    FROM content, project, branch, changelist, author)
INSERT INTO branch_heads (project_id, branch_id, path_key, from_no, path, asset_id, version, sha256, size_bytes)
SELECT project.id, branch.id, path, 1, path, asset_id, 1, sha256, 1 FROM content, project, branch
"""


class Depot:
    """The primary and its files. A collector runs beside it, as it does in a studio."""

    def __init__(self, cluster: Cluster, home: Path) -> None:
        self.cluster = cluster
        self.home = home
        self.backup_dir = home / "backups"
        self.archive_root = home / "archive"
        self.drill_dir = home / "drill"
        self.store = home / "store"
        self.said: list[str] = []

    def execute(self, statement: str) -> list[tuple]:
        with psycopg.connect(self.cluster.url("depot"), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    @property
    def archive(self) -> WalArchive:
        return WalArchive(self.archive_root, self.execute("SELECT system_identifier FROM pg_control_system()")[0][0])

    def back_up(self, kind: BaseBackupKind = BaseBackupKind.FULL) -> BaseBackup:
        return take_base_backup(self.cluster.url(), self.backup_dir, self.cluster.binaries, kind)

    def dump(self) -> Path:
        url = self.cluster.url("depot", "depot_dump")
        return self.backup_dir / take_logical_backup(url, self.backup_dir, self.cluster.binaries).file

    def archive_all(self) -> None:
        finding = check_freshness(self.cluster.url(), self.archive)
        assert finding.status == "healthy", finding.detail

    def objects(self) -> list[Path]:
        return sorted(self.store.rglob("*.bin.gz"))

    def site(self, **changes) -> Site:
        given = {
            "ops_url": self.cluster.url("depot", "depot_ops"),
            "replication_url": self.cluster.url(),
            "backup_dir": self.backup_dir,
            "archive_root": self.archive_root,
            "drill_dir": self.drill_dir,
            "stores": (self.store,),
            "blob_shards": 1,
            "rpo_objective_seconds": 0.0,
            "stream": None,
            "copy": None,
            "binaries": self.cluster.binaries,
            "account": self.cluster.account,
            "say": self.said.append,
        }
        return Site(**{**given, **changes})

    def drill(self, kind: DrillKind = DrillKind.BASE, **changes) -> DrillRecord:
        return run_drill(kind, self.site(**changes))

    @property
    def environment(self) -> dict[str, str]:
        return {
            "DEPOT_OPS_URL": self.cluster.url("depot", "depot_ops"),
            "DEPOT_REPLICATION_URL": self.cluster.url(),
            "BACKUP_DIR": str(self.backup_dir),
            "WAL_ARCHIVE_DIR": str(self.archive_root),
            "DRILL_DIR": str(self.drill_dir),
            "ASSET_STORAGE_PATH": str(self.store),
            "RPO_OBJECTIVE_SECONDS": "30",
            "DEPOT_PG_BINDIR": str(self.cluster.binaries.bindir),
        }

    def left_behind(self) -> list[str]:
        return [path.name for path in self.drill_dir.iterdir() if path.name != ".lock"]


@pytest.fixture(scope="package")
def pristine(reachable_dir) -> Iterator[Path]:
    """A depot with content that was made once, to be copied for each test."""
    account = server_account()
    binaries = runnable_binaries(find_binaries(), account)
    home = Path(tempfile.mkdtemp(dir=reachable_dir))
    home.chmod(0o711)
    cluster = Cluster(home / "c", any_free(), PASSWORD, binaries, account, {"fsync": "off", "wal_init_zero": "off"})
    cluster.initialize()
    cluster.start()
    environment = {
        **os.environ,
        "DEPOT_BOOTSTRAP_URL": cluster.url(),
        **{f"{role.upper()}_PASSWORD": PASSWORD for role in ROLES},
        "DATABASE_OWNER_URL": cluster.url("depot", "depot_owner"),
    }
    for command in ("bootstrap", "upgrade"):
        subprocess.run([sys.executable, "-m", "depot_api.database", command], env=environment, check=True)
    seed(cluster.url("depot", "depot_owner"), home / "store")
    cluster.stop()
    # Sixteen times less to write, hash and copy; the tests of the log itself have segments of 16 MiB.
    command = [binaries.path("pg_resetwal"), "--wal-segsize=1", "-D", cluster.data]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/", **account.process_owner())
    yield home
    shutil.rmtree(home)


def seed(owner_url: str, store: Path) -> None:
    store.mkdir()
    blobs = BlobStore(store)
    blobs.prepare()
    staged = []
    for number in range(PATHS):
        writer = blobs.writer()
        writer.write(b"content %d" % number)
        staged.append(writer.finish())
    stored = blobs.commit(staged)
    blobs.close()
    with psycopg.connect(owner_url) as owner:
        for table in TABLES:
            owner.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        with owner.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO blobs (sha256, size_bytes, stored_bytes, stored_crc32) VALUES (%s, %s, %s, %s)",
                [(bytes.fromhex(b.sha256), b.size_bytes, b.stored_bytes, b.stored_crc32) for b in stored],
            )
        owner.execute(SEED, {"hashes": [bytes.fromhex(blob.sha256) for blob in stored]})
        for table in TABLES:
            owner.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")


@pytest.fixture
def depot(pristine, reachable_dir) -> Iterator[Depot]:
    account = server_account()
    binaries = runnable_binaries(find_binaries(), account)
    home = Path(tempfile.mkdtemp(dir=reachable_dir))
    home.chmod(0o711)
    shutil.copytree(pristine, home, dirs_exist_ok=True)
    for path in ((home / "c"), *(home / "c").rglob("*")):
        account.own(path)
    settings = {
        **archiving(home / "c", binaries.major),
        "archive_timeout": "1s",
        "external_pid_file": f"'{home / 'c' / 'production.pid'}'",
        "fsync": "off",
    }
    cluster = Cluster(home / "c", any_free(), PASSWORD, binaries, account, settings)
    cluster.start()
    stop = threading.Event()

    def collect_on() -> None:
        while not stop.wait(0.05):
            collect(cluster.wal_spool, home / "archive")

    collector = threading.Thread(target=collect_on)
    collector.start()
    yield Depot(cluster, home)
    stop.set()
    collector.join()
    if cluster.process:
        cluster.process.send_signal(signal.SIGQUIT)  # nobody reads what it would still archive
    cluster.stop()
    shutil.rmtree(home)
