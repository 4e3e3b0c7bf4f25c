"""docs/runbook.md and docs/disaster-recovery.md: their commands, on a running stack that was broken as they say.

In their order on one stack: each test goes on from what the one before has left. What needs no standby and no
damage is run by tests/end_to_end, too.
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import psutil
import psycopg
import pytest

from tests.docs.pages import run
from tests.end_to_end.test_stack import BIN, Stack, wait_until

RUNBOOK, DISASTER = "runbook.md", "disaster-recovery.md"
SEGMENT = "[0-9A-F]" * 24 + ".gz"
pytestmark = pytest.mark.skipif("TORTURE_SECONDS" not in os.environ, reason="takes minutes: make torture runs it")


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="depot-runbook-"))
    made.chmod(0o711)  # a server's unprivileged account has to pass
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def stack(directory: Path) -> Iterator[Stack]:
    settings = {
        "ASSET_STORAGE_REPLICA_PATH": str(directory / "mirror"),
        "RPO_OBJECTIVE_SECONDS": "5",  # a drill waits as long for the log to arrive by itself
    }
    running = Stack(directory / "data", "--standby", **settings)
    running.start()
    tree = directory / "tree"
    tree.mkdir()
    for number in range(20):
        (tree / f"{number}.txt").write_text(f"{number}\n" * 1000)
    running.run("depot", "project", "create", "precious")
    running.run("depot", "submit", str(tree), "--project", "precious", "--branch", "main", "-m", "all")
    for command in (("backup", "logical"), ("backup", "full"), ("blobs", "mirror")):
        running.run("depot-ops", *command)
    yield running
    running.stop()


@pytest.fixture
def shell(stack: Stack, directory: Path) -> dict[str, str]:
    """As of somebody who has read stack.env and has our commands."""
    return {
        **os.environ,
        **stack.environment(),
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "RPO_OBJECTIVE_SECONDS": stack.settings["RPO_OBJECTIVE_SECONDS"],
        "DATA": str(primary_of(stack)),
    }


@pytest.fixture
def follow(stack: Stack, shell: dict[str, str], tmp_path: Path) -> Callable[..., list[str]]:
    """Do what a section says."""
    return lambda page, section, **more: run(page, tmp_path, shell | more, section)


def primary_of(stack: Stack) -> Path:
    return Path(str(stack.told["replica_dir"])).parent / "primary" / "data"


def roles(stack: Stack) -> dict[str, str]:
    said = subprocess.run(
        [BIN / "depot-ops", "replica", "list"], env=stack.environment(), capture_output=True, text=True, check=True
    )
    return {node["name"]: node["role"] for node in map(json.loads, said.stdout.splitlines())}


def kill_server(stack: Stack, name: str) -> None:
    pid = stack.told["pids"][name]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(pid))


def test_every_procedure(follow):
    follow(RUNBOOK, "Procedures")


def test_nothing_is_known_yet(follow):
    follow(DISASTER, "Nothing works, or not all of it")


def test_content_is_damaged(stack, follow):
    store = stack.data_dir / "storage" / "objects"
    damaged = next(path for path in store.rglob("*") if path.is_file())
    before = damaged.read_bytes()
    damaged.chmod(0o600)
    damaged.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    follow(DISASTER, "Content is damaged")
    assert damaged.read_bytes() == before


def test_the_log_has_a_gap(stack, follow):
    chains = len(list((stack.data_dir / "backups" / "base").glob("*/*-full")))
    lost = max((stack.data_dir / "wal_archive").rglob(SEGMENT), key=lambda path: path.name)
    kept = lost.rename(stack.data_dir / "kept")
    follow(DISASTER, "The log has a gap, or does not arrive")
    assert len(list((stack.data_dir / "backups" / "base").glob("*/*-full"))) == chains + 1
    kept.rename(lost)


def test_rows_are_gone_or_wrong(stack, follow):
    before = datetime.now(UTC).isoformat()
    stack.run("depot", "project", "create", "a-mistake")
    follow(DISASTER, "Rows are gone or wrong", WHEN=before)
    assert (primary_of(stack).parents[1] / "beside" / "PG_VERSION").exists()


def test_the_primary_is_lost(stack, follow):
    data = primary_of(stack)
    data.rename(data.with_name("lost"))
    kill_server(stack, "postgres")
    follow(DISASTER, "The primary is lost")
    assert roles(stack) == {"primary": "standby", "standby": "primary"}
    stack.run("depot", "project", "create", "after-the-failover")


def test_two_primaries(stack, follow):
    with psycopg.connect(stack.environment()["DEPOT_REPLICATION_URL"].replace("=primary", "=standby")) as standby:
        standby.execute("SELECT pg_promote()")
    follow(DISASTER, "Two primaries")
    assert roles(stack) == {"primary": "standby", "standby": "primary"}


@pytest.mark.parametrize(
    ("section", "lost"),
    [("The database is lost", []), ("Database and store are lost", ["storage"])],
    ids=lambda value: None if isinstance(value, list) else value,
)
def test_all_servers_are_lost(stack, follow, section, lost):
    data = primary_of(stack)
    stack.run("depot-ops", "wal", "check")
    assert stack.stop() == 0
    for gone in (data, data.parents[1] / "standby" / "data", *(stack.data_dir / name for name in lost)):
        shutil.rmtree(gone)
    follow(DISASTER, section)
    stack.start()
    projects = {project["name"] for project in stack.run("depot", "project", "list")["projects"]}
    assert {"precious", "after-the-failover"} <= projects
    stack.run("depot", "sync", str(data.parents[1] / f"out-{len(lost)}"), "--project", "precious", "--branch", "main")


def test_afterwards(follow):
    follow(DISASTER, "Afterwards")
