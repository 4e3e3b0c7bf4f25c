"""An archiving primary and its standby, with a dump and an archive, as a report finds them on a good night."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import psycopg
import pytest

from depot_ops.local.ports import any_free
from depot_ops.postgres.accounts import runnable_binaries, server_account
from depot_ops.postgres.binaries import find_binaries
from depot_ops.postgres.cluster import Cluster, archiving
from depot_ops.postgres.dump import take_logical_backup
from depot_ops.postgres.wal.archive import open_archive
from depot_ops.postgres.wal.collector import collect

DEADLINE_SECONDS = 60


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.02)


class Pair:
    """A primary and its standby; what the primary archives is collected when a test says so."""

    def __init__(self, primary: Cluster, standby: Cluster, archive_root: Path) -> None:
        self.primary = primary
        self.standby = standby
        self.archive_root = archive_root

    def execute(self, statement: str, url: str | None = None) -> list[tuple]:
        with psycopg.connect(url or self.primary.url(), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def finish_segment(self) -> str:
        ((name,),) = self.execute("SELECT pg_walfile_name(pg_logical_emit_message(false, 'test', 'x'))")
        self.execute("SELECT pg_switch_wal()")
        wait_until((self.primary.wal_spool / name).exists)
        return name

    def collect(self) -> None:
        assert collect(self.primary.wal_spool, self.archive_root).refused == []

    def stream(self) -> None:
        """Wait until the standby has replayed what the primary has written."""
        ((end,),) = self.execute("SELECT pg_current_wal_lsn()::text")
        replayed = f"SELECT pg_last_wal_replay_lsn() >= '{end}' FROM pg_stat_wal_receiver WHERE status = 'streaming'"
        wait_until(lambda: self.execute(replayed, self.standby.url()) == [(True,)])


@pytest.fixture(scope="package")
def pair(reachable_dir) -> Iterator[Pair]:
    account = server_account()
    binaries = runnable_binaries(find_binaries(), account)
    home = Path(tempfile.mkdtemp(dir=reachable_dir))
    home.chmod(0o711)
    settings = {**archiving(home / "p", binaries.major), "fsync": "off"}
    primary = Cluster(home / "p", any_free(), "only-for-tests", binaries, account, settings)
    primary.initialize()
    primary.start()
    standby = Cluster(home / "s", any_free(), "only-for-tests", binaries, account, {"fsync": "off"})
    copy = [
        binaries.path("pg_basebackup"),
        "--dbname",
        primary.url(),
        "--pgdata",
        standby.data,
        "--write-recovery-conf",
    ]
    subprocess.run([*copy, "--checkpoint=fast"], check=True)
    for path in (standby.home, *standby.home.rglob("*")):
        account.own(path)
    standby.start()
    made = Pair(primary, standby, home / "archive")
    made.finish_segment()
    made.collect()
    made.stream()
    yield made
    standby.stop()
    primary.stop()
    shutil.rmtree(home)


@pytest.fixture(scope="package")
def dumped(pair, tmp_path_factory) -> Path:
    """A backup directory with a proved dump; tests that change it copy it first."""
    directory = tmp_path_factory.mktemp("backups")
    take_logical_backup(pair.primary.url(), directory, pair.primary.binaries)
    return directory


@pytest.fixture
def backup_dir(dumped, tmp_path) -> Path:
    return shutil.copytree(dumped, tmp_path / "backups")


@pytest.fixture
def archive(pair):
    return open_archive(pair.archive_root)


@pytest.fixture(scope="package")
def health_url() -> Iterator[str]:
    body = b'{"status": "ok", "checks": {"storage": {"status": "ok", "free_bytes": 1000}}}'

    class Healthy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Healthy)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def only_what_is_passed(monkeypatch, pair) -> None:
    for name in ("BACKUP_DIR", "WAL_ARCHIVE_DIR", "DEPOT_REPLICATION_URL", "DEPOT_REPLICA_URL", "DEPOT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DEPOT_PG_BINDIR", str(pair.primary.binaries.bindir))
