"""Servers that archive, and real segments of theirs."""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from depot_ops.local.ports import any_free
from depot_ops.postgres.accounts import runnable_binaries, server_account
from depot_ops.postgres.binaries import find_binaries
from depot_ops.postgres.cluster import Cluster, archiving
from depot_ops.postgres.wal.names import WalName, parse_wal_name

DEADLINE_SECONDS = 60


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.01)


class Primary:
    """An archiving server, whose segments a test asks for one by one."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.spool = cluster.wal_spool

    def execute(self, statement: str) -> list[tuple]:
        with psycopg.connect(self.cluster.url(), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    @property
    def system_identifier(self) -> int:
        return self.execute("SELECT system_identifier FROM pg_control_system()")[0][0]

    def finish_segment(self, filler_bytes: int = 1) -> str:
        """Fill a segment with a little, switch, and wait until it is in the spool."""
        message = f"pg_logical_emit_message(false, 'test', repeat('x', {filler_bytes}))"
        ((name,),) = self.execute(f"SELECT pg_walfile_name({message})")
        self.execute("SELECT pg_switch_wal()")
        wait_until((self.spool / name).exists)
        return name


@pytest.fixture(scope="package")
def primary(reachable_dir) -> Iterator[Primary]:
    account = server_account()
    binaries = runnable_binaries(find_binaries(), account)
    home = Path(tempfile.mkdtemp(dir=reachable_dir))
    home.chmod(0o711)
    settings = {**archiving(home / "c", binaries.major), "fsync": "off", "max_wal_size": "4GB"}
    cluster = Cluster(home / "c", any_free(), "only-for-tests", binaries, account, settings)
    cluster.initialize()
    cluster.start()
    yield Primary(cluster)
    cluster.stop()


@pytest.fixture(scope="package")
def segments(primary) -> list[tuple[WalName, bytes]]:
    """Three real segments in a row; tests that only need bytes read these."""
    names = [primary.finish_segment() for _ in range(3)]
    return [(parse_wal_name(name), (primary.spool / name).read_bytes()) for name in names]


@pytest.fixture(scope="package")
def system_identifier(primary) -> int:
    return primary.system_identifier


@pytest.fixture
def spool(tmp_path, segments) -> Path:
    """A spool of this test alone, with the three segments."""
    directory = tmp_path / "spool"
    directory.mkdir()
    for name, content in segments:
        (directory / name.name).write_bytes(content)
    return directory


@pytest.fixture
def archive_root(tmp_path) -> Path:
    return tmp_path / "archive"
