"""A primary with the depot's schema and servers that outlive their starter, all with fsync on only where it matters."""

import itertools
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from depot_api.database.bootstrap import ROLES
from depot_ops.local.ports import any_free
from depot_ops.postgres.accounts import runnable_binaries, server_account
from depot_ops.postgres.binaries import find_binaries
from depot_ops.postgres.cluster import Cluster, initdb
from depot_ops.replicas.create import PRIMARY, Place, create
from depot_ops.replicas.nodes import Node, Nodes
from depot_ops.replicas.server import Server, ShutdownMode

PASSWORD = "only-for-tests"
SETTINGS = {
    "fsync": "off",
    "shared_buffers": "16MB",
    "max_connections": "40",
    "wal_level": "replica",
    "wal_keep_size": "64MB",
    "log_min_messages": "info",
}


class Writer(threading.Thread):
    """Adds numbers to a set until it is stopped, wherever writes are taken; remembers what was acknowledged."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self.acknowledged: list[tuple[int, float]] = []
        self.stopping = threading.Event()

    def run(self) -> None:
        numbers = itertools.count()
        while not self.stopping.is_set():
            try:
                with psycopg.connect(self.url, autocommit=True, connect_timeout=2) as connection:
                    while not self.stopping.is_set():
                        number = next(numbers)
                        connection.execute("INSERT INTO written VALUES (%s)", (number,))
                        self.acknowledged.append((number, time.monotonic()))
            except psycopg.Error:
                self.stopping.wait(0.02)

    def stop(self) -> set[int]:
        self.stopping.set()
        self.join()
        return {number for number, _ in self.acknowledged}

    def longest_gap(self) -> float:
        moments = [moment for _, moment in self.acknowledged]
        return max(later - earlier for earlier, later in itertools.pairwise(moments))


@dataclass
class Replication:
    """A primary and what is made of it."""

    place: Place
    primary: Node

    def node(self, name: str) -> Node:
        return self.place.nodes.get(name)

    def server(self, name: str) -> Server:
        return self.place.server(self.node(name))

    def conninfo(self, name: str, database: str = "depot") -> str:
        return self.node(name).conninfo(self.place.url) + f" dbname={database}"

    def query(self, name: str, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.conninfo(name), autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def multi_host_url(self, user: str = "postgres", database: str = "depot") -> str:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.place.nodes.all())
        return f"postgresql://{user}:{PASSWORD}@{hosts}/{database}?target_session_attrs=read-write"

    def writer(self) -> Writer:
        started = Writer(self.multi_host_url())
        started.start()
        return started

    def follow(self) -> None:
        """From now on the primary is looked for among all nodes."""
        self.place = Place(
            self.place.nodes, self.multi_host_url(), self.place.binaries, self.place.account, self.place.archive
        )


@pytest.fixture(scope="session")
def seed(reachable_dir: Path) -> Path:
    """The data directory of a migrated depot, to copy: making one takes seconds."""
    account = server_account()
    binaries = runnable_binaries(find_binaries(), account)
    home = reachable_dir / "replica-seed"
    cluster = Cluster(home, any_free(), PASSWORD, binaries, account, {"fsync": "off"})
    cluster.initialize()
    cluster.start()
    environment = {
        **os.environ,
        "DEPOT_BOOTSTRAP_URL": cluster.url(),
        **{f"{role.upper()}_PASSWORD": PASSWORD for role in ROLES},
        "DATABASE_OWNER_URL": cluster.url("depot", "depot_owner"),
    }
    try:
        for command in ("bootstrap", "upgrade"):
            subprocess.run([sys.executable, "-m", "depot_api.database", command], env=environment, check=True)
    finally:
        cluster.stop()
    return cluster.data


@contextmanager
def primary_of(seed: Path, directory: Path) -> Iterator[Replication]:
    """A primary of its own, made from the seed. Every server below `directory` is stopped at the end."""
    account = server_account()
    binaries = runnable_binaries(find_binaries(), account)
    nodes = Nodes(directory / "nodes")
    nodes.prepare()
    home = directory / "first"
    home.mkdir(mode=0o711)
    subprocess.run(["cp", "-a", seed, home / "data"], check=True)
    account.own(home)
    port = any_free()
    node = Node(name=PRIMARY, data=home / "data", port=port, socket_directories=str(home))
    url = f"postgresql://postgres:{PASSWORD}@127.0.0.1:{port}/postgres"
    place = Place(nodes, url, binaries, account)
    server = place.server(node)
    settings = {**SETTINGS, "port": str(port), "listen_addresses": "127.0.0.1", "unix_socket_directories": str(home)}
    (home / "data" / "depot.conf").write_text("".join(f"{name} = '{value}'\n" for name, value in settings.items()))
    server.start()
    nodes.save(node)
    try:
        yield Replication(place, node)
    finally:
        for left in {node.data: node, **{known.data: known for known in nodes.all()}}.values():
            if left.data.is_dir():
                place.server(left).stop(ShutdownMode.IMMEDIATE)


@pytest.fixture
def replication(seed: Path, reachable_dir: Path) -> Iterator[Replication]:
    """A primary without a standby."""
    with primary_of(seed, _new_directory(reachable_dir)) as made:
        yield made


@pytest.fixture
def replicated(replication: Replication) -> Replication:
    """A primary, its standby, and a table for a Writer."""
    create(replication.place, "standby")
    replication.follow()
    replication.query("primary", "CREATE TABLE written (number int PRIMARY KEY)")
    return replication


@pytest.fixture(scope="module")
def pair(seed: Path, reachable_dir: Path) -> Iterator[Replication]:
    """A primary and its standby, for tests that leave both as they are."""
    with primary_of(seed, _new_directory(reachable_dir)) as made:
        create(made.place, "standby")
        yield made


@pytest.fixture(scope="module")
def storage_url(reachable_dir: Path) -> Iterator[str]:
    """A server that is not the depot's, where Dagster's storage could be."""
    account = server_account()
    binaries = runnable_binaries(find_binaries(), account)
    home = Path(tempfile.mkdtemp(dir=reachable_dir))
    account.own(home)
    initdb(binaries, account, home / "data", "--auth=trust", "--no-sync")
    node = Node(name="storage", data=home / "data", port=any_free(), socket_directories=str(home))
    server = Server(node, Nodes(home), binaries, account)
    server.configure({"fsync": "off", "shared_buffers": "16MB"})
    server.start()
    yield f"postgresql+psycopg2://postgres@127.0.0.1:{node.port}/postgres"
    server.stop(ShutdownMode.IMMEDIATE)


def _new_directory(parent: Path) -> Path:
    directory = Path(tempfile.mkdtemp(dir=parent))
    directory.chmod(0o711)
    return directory
