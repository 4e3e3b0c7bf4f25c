"""A primary that archives, with rows to recognise moments by, its base backups and its archive."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import psycopg
import pytest

from depot_ops.local.ports import any_free
from depot_ops.postgres.accounts import runnable_binaries, server_account
from depot_ops.postgres.base_backup import INCREMENTAL_SINCE, take_base_backup
from depot_ops.postgres.base_record import BaseBackup, BaseBackupKind
from depot_ops.postgres.binaries import find_binaries
from depot_ops.postgres.cluster import Cluster, archiving
from depot_ops.postgres.wal.archive import WalArchive
from depot_ops.postgres.wal.collector import collect
from depot_ops.postgres.wal.progress import check_freshness


class Primary:
    """A server with a table of numbered rows; what it archives is collected when a test says so."""

    def __init__(self, cluster: Cluster, home: Path) -> None:
        self.cluster = cluster
        self.backup_dir = home / "backups"
        self.archive_root = home / "archive"

    @property
    def url(self) -> str:
        return self.cluster.url()

    def execute(self, statement: str) -> list[tuple]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    @property
    def archive(self) -> WalArchive:
        system = self.execute("SELECT system_identifier FROM pg_control_system()")[0][0]
        return WalArchive(self.archive_root, system)

    def insert(self, count: int = 1) -> datetime:
        """Commit that many rows, and return a moment at which they all are there and no later one."""
        for _ in range(count):
            self.execute("INSERT INTO numbered DEFAULT VALUES")
        return self.execute("SELECT clock_timestamp()")[0][0]

    def rows(self) -> list[int]:
        return [row for (row,) in self.execute("SELECT id FROM numbered ORDER BY id")]

    def back_up(self, kind: BaseBackupKind = BaseBackupKind.FULL) -> BaseBackup:
        return take_base_backup(self.url, self.backup_dir, self.cluster.binaries, kind)

    def archive_all(self) -> None:
        """Bring everything written so far into the archive."""

        def collect_all() -> None:
            assert collect(self.cluster.wal_spool, self.archive_root).refused == []

        finding = check_freshness(self.url, self.archive, collect=collect_all)
        assert finding.status == "healthy", finding.detail


@pytest.fixture(scope="package")
def pristine(reachable_dir) -> Iterator[Path]:
    """A cluster that was made once, to be copied for each test."""
    account = server_account()
    binaries = runnable_binaries(find_binaries(), account)
    home = Path(tempfile.mkdtemp(dir=reachable_dir))
    home.chmod(0o711)
    cluster = Cluster(home / "c", any_free(), "only-for-tests", binaries, account)
    cluster.initialize()
    cluster.start()
    with psycopg.connect(cluster.url(), autocommit=True) as connection:
        connection.execute("CREATE TABLE numbered (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text)")
        connection.execute(
            "CREATE TABLE filler AS SELECT g AS id, md5(g::text) AS text FROM generate_series(1, 30000) g"
        )
    cluster.stop()
    # Sixteen times less to write, hash and copy; the tests of the log itself have segments of 16 MiB.
    command = [binaries.path("pg_resetwal"), "--wal-segsize=1", "-D", cluster.data]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/", **account.process_owner())
    yield cluster.home
    shutil.rmtree(home)


@pytest.fixture(scope="session")
def incremental() -> BaseBackupKind:
    """What a test asks for that is about chains."""
    if find_binaries().major < INCREMENTAL_SINCE:
        pytest.skip("PostgreSQL before 17 has no incremental backups")
    return BaseBackupKind.INCREMENTAL


@pytest.fixture
def work_dir(reachable_dir) -> Iterator[Path]:
    home = Path(tempfile.mkdtemp(dir=reachable_dir))
    home.chmod(0o711)
    yield home
    shutil.rmtree(home)


@contextmanager
def started(pristine: Path, work_dir: Path) -> Iterator[Primary]:
    """A primary of its own in `work_dir`."""
    account = server_account()
    binaries = runnable_binaries(find_binaries(), account)
    home = work_dir / "c"
    settings = {**archiving(home, binaries.major), "fsync": "off"}
    cluster = Cluster(home, any_free(), "only-for-tests", binaries, account, settings)
    shutil.copytree(pristine, home)
    for path in (home, *home.rglob("*")):
        account.own(path)
    cluster.start()
    yield Primary(cluster, work_dir)
    cluster.stop()


@pytest.fixture
def primary(pristine, work_dir) -> Iterator[Primary]:
    with started(pristine, work_dir) as primary:
        yield primary


@pytest.fixture(scope="module")
def shared_primary(pristine, reachable_dir) -> Iterator[tuple[Primary, Path]]:
    """One for a module whose tests only read it, and the directory that is its home."""
    home = Path(tempfile.mkdtemp(dir=reachable_dir))
    home.chmod(0o711)
    with started(pristine, home) as primary:
        yield primary, home
    shutil.rmtree(home)
