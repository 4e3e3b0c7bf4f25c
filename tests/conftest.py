"""What every test can have: a throwaway PostgreSQL cluster for each worker, and a migrated database for each test."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from depot_api.database.bootstrap import ROLES
from depot_ops.postgres.accounts import runnable_binaries, server_account
from depot_ops.postgres.binaries import find_binaries
from depot_ops.postgres.cluster import Cluster

pytest_plugins = ["tests.object_storage", "tests.dying_disk"]

PASSWORD = "only-for-tests"
TEMPLATE = "depot"
# The files that take longest go first, so that the workers end together.
LONG = ("end_to_end", "torture", "test_openapi.py", "recovery", "replicas", "test_processes.py", "launch")
# Nothing a test keeps has to outlive the machine.
UNSAFE_SETTINGS = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "max_connections": "60"}


# What tests write lies in memory where that has room: a database is there in 40 ms instead of 500.
MEMORY, MEMORY_BYTES = Path("/dev/shm"), 8 << 30


def pytest_configure() -> None:
    if "TMPDIR" not in os.environ and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= MEMORY_BYTES:
        os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: min(places.get(part, len(LONG)) for part in item.path.parts))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def reachable_dir() -> Iterator[Path]:
    """A directory that a server's unprivileged account can enter; pytest's own are closed to it."""
    directory = Path(tempfile.mkdtemp(prefix="depot-test-"))
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def cluster(reachable_dir: Path) -> Iterator[Cluster]:
    """A running cluster, one for each worker."""
    account = server_account()
    binaries = runnable_binaries(find_binaries(), account)
    made = Cluster(reachable_dir / "cluster", free_port(), PASSWORD, binaries, account, UNSAFE_SETTINGS)
    made.initialize()
    made.start()
    yield made
    made.stop()


@dataclass(frozen=True)
class DepotDatabase:
    """A database of one test, with the depot's schema in it."""

    name: str
    superuser_url: str
    owner_url: str
    service_url: str
    dump_url: str
    ops_url: str


@pytest.fixture(scope="session")
def depot_template(cluster: Cluster) -> str:
    """A migrated database that tests clone."""
    environment = {
        **os.environ,
        "DEPOT_BOOTSTRAP_URL": cluster.url(),
        **{f"{role.upper()}_PASSWORD": PASSWORD for role in ROLES},
        "DATABASE_OWNER_URL": cluster.url(TEMPLATE, "depot_owner"),
    }
    for command in ("bootstrap", "upgrade"):
        subprocess.run([sys.executable, "-m", "depot_api.database", command], env=environment, check=True)
    return TEMPLATE


@pytest.fixture
def depot_database(cluster: Cluster, depot_template: str) -> Iterator[DepotDatabase]:
    name = f"depot_{secrets.token_hex(6)}"
    with psycopg.connect(cluster.url(), autocommit=True) as admin:
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER depot_owner STRATEGY file_copy")
        admin.execute(create.format(sql.Identifier(name), sql.Identifier(depot_template)))
    yield DepotDatabase(
        name=name,
        superuser_url=cluster.url(name),
        owner_url=cluster.url(name, "depot_owner"),
        service_url=cluster.url(name, "depot_service"),
        dump_url=cluster.url(name, "depot_dump"),
        ops_url=cluster.url(name, "depot_ops"),
    )
    with psycopg.connect(cluster.url(), autocommit=True) as admin:
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
