"""`depot-ops up --standby`: both servers under one supervisor, which lets them change places and finds them again."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest

from depot_ops.local.ports import any_free
from depot_ops.replicas.nodes import Nodes
from depot_ops.replicas.server import wait_until
from depot_ops.replicas.synchronous import Commit, Policy, recorded, switch

READY_SECONDS = 90


class Stack:
    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir

    def start(self) -> None:
        command = [sys.executable, "-m", "depot_ops", "up", "--data-dir", self.data_dir, "--no-dagster"]
        command += ["--api-port", str(any_free()), "--api-workers", "1"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "STANDBY": "1"}
        )
        said = []
        for line in self.process.stdout:
            said.append(line)
            if "Ctrl-C stops" in line:
                return
        raise AssertionError("".join(said))

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(READY_SECONDS)

    @property
    def told(self) -> dict[str, str]:
        return json.loads((self.data_dir / "stack.json").read_text())

    def replica(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "DEPOT_REPLICATION_URL": self.told["replication_url"],
            "REPLICA_DIR": self.told["replica_dir"],
            "ASSET_STORAGE_PATH": str(self.data_dir / "storage"),
        }
        command = [sys.executable, "-m", "depot_ops", "replica", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    def roles(self) -> dict[str, tuple[str, str | None]]:
        lines = [json.loads(line) for line in self.replica("list").stdout.splitlines()]
        return {line["name"]: (line["role"], line["receiver"]) for line in lines}

    def create_project(self, name: str) -> int:
        headers = {"Authorization": f"Bearer {self.told['admin_token']}", "Idempotency-Key": name}
        url = f"{self.told['api_url']}/projects"
        return httpx.post(url, json={"name": name}, headers=headers, timeout=30).status_code

    def projects(self) -> set[str]:
        with psycopg.connect(self.told["database_url"]) as connection:
            return {name for (name,) in connection.execute("SELECT name FROM projects").fetchall()}


@pytest.fixture
def stack(reachable_dir) -> Iterator[Stack]:
    data_dir = Path(tempfile.mkdtemp(dir=reachable_dir))
    data_dir.chmod(0o711)
    made = Stack(data_dir)
    made.start()
    yield made
    made.stop()


def test_they_change_places_and_are_found_again(stack):
    assert stack.roles() == {"primary": ("primary", None), "standby": ("standby", "streaming")}
    assert stack.create_project("before") == 201

    hang_and_come_back(stack)

    rebuilt = stack.replica("rebuild", "standby")
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert stack.roles() == {"primary": ("primary", None), "standby": ("standby", "streaming")}

    done = stack.replica("switchover", "standby")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["rejoined"]["way"] == "straight"
    assert stack.roles() == {"primary": ("standby", "streaming"), "standby": ("primary", None)}
    wait_until(lambda: stack.create_project("after") == 201, 20, "the service does not follow")

    stack.stop()
    stack.start()
    assert stack.roles() == {"primary": ("standby", "streaming"), "standby": ("primary", None)}
    assert stack.create_project("after-restart") == 201
    assert stack.projects() >= {"before", "after", "after-restart"}
    # A shell that has read stack.env knows the standby, whichever it is now.
    check = [sys.executable, "-m", "depot_ops", "replica", "check"]
    told = ["sh", "-c", '. "$0" && exec "$@"', stack.data_dir / "stack.env", *check]
    done = subprocess.run(told, capture_output=True, text=True, check=False)
    assert (done.returncode, json.loads(done.stdout)["status"]) == (0, "healthy"), done.stdout + done.stderr


def hang_and_come_back(stack: Stack) -> None:
    """Somebody looks after the synchronous mode: writes go on when the standby hangs, and wait for it afterwards."""
    nodes, url = Nodes(Path(stack.told["replica_dir"])), stack.told["replication_url"]
    switch(nodes, url, Policy.DEGRADE, Commit.ON, 0.5)
    server = psutil.Process(stack.told["pids"]["postgres-standby"])
    hung = [server, *server.children()]
    for process in hung:
        process.suspend()
    try:
        wait_until(lambda: recorded(nodes).degraded is not None, 20, "nobody notices that it hangs")
        assert stack.create_project("degraded") == 201
    finally:
        for process in hung:
            process.resume()
    wait_until(lambda: recorded(nodes).degraded is None, 20, "nobody waits for it again")
    switch(nodes, url, Policy.OFF, Commit.ON, 0.5)
