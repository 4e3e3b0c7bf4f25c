"""The service follows its primary, and does not go back to an old one, whatever that says of itself."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from depot_api.epochs import EpochFile
from depot_ops.evidence import Status
from depot_ops.local.ports import any_free
from depot_ops.replicas.failover import promote
from depot_ops.replicas.promotion import adopt, switchover
from depot_ops.replicas.rejoin import rejoin
from depot_ops.replicas.server import ShutdownMode, wait_until
from depot_ops.replicas.single_primary import check_single_primary

PASSWORD = "only-for-tests"


@dataclass
class Service:
    url: str
    token: str
    storage: Path

    def create_project(self, name: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}", "Idempotency-Key": name}
        return httpx.post(f"{self.url}/projects", json={"name": name}, headers=headers, timeout=30)

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=10).status_code == 200
        except httpx.TransportError:
            return False

    @property
    def file(self) -> EpochFile:
        return EpochFile(self.storage / "cluster-epoch")

    def epoch(self) -> int:
        return self.file.highest()


@pytest.fixture
def service(replicated, tmp_path) -> Iterator[Service]:
    """With both servers in its address, the primary first."""
    urls = (replicated.multi_host_url("depot_service"), replicated.multi_host_url("depot_owner"))
    with running_service(*urls, tmp_path) as made:
        yield made


@contextmanager
def running_service(url: str, owner_url: str, directory: Path) -> Iterator[Service]:
    """A service with an admin's token, on the servers that the addresses name."""
    token = "depot_" + "t" * 43
    environment = {
        **os.environ,
        "DATABASE_URL": url,
        "JWT_SECRET": "j" * 40,
        "ASSET_STORAGE_PATH": str(directory / "storage"),
        "DATABASE_OWNER_URL": owner_url,
        "DEPOT_ADMIN_PASSWORD": "a-good-password-for-tests",
        "DEPOT_API_TOKEN": token,
    }
    (directory / "storage").mkdir()
    tool = [sys.executable, "-m", "depot_api.identity"]
    subprocess.run([*tool, "create-admin", "--username", "admin"], env=environment, check=True, capture_output=True)
    arguments = ["create-token", "--username", "admin", "--name", "t", "--scope", "admin", "--days", "1"]
    subprocess.run([*tool, *arguments], env=environment, check=True, capture_output=True)
    port = any_free()
    command = [sys.executable, "-m", "depot_api", "--port", str(port), "--workers", "1"]
    with (directory / "api.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    made = Service(f"http://127.0.0.1:{port}", token, directory / "storage")
    try:
        wait_until(made.is_ready, 90, f"the service does not start: {(directory / 'api.log').read_text()}")
        yield made
    finally:
        process.terminate()
        process.wait()


def projects(replicated, node: str) -> set[str]:
    return {name for (name,) in replicated.query(node, "SELECT name FROM projects")}


def write_until_done(service: Service, name: str) -> float:
    """As the depot's client does: 503 with Retry-After is tried again. Returns the seconds it took."""
    started = time.monotonic()
    while (response := service.create_project(name)).status_code != 201:
        assert response.status_code == 503, response.text
        assert int(response.headers["Retry-After"]) <= 5
        assert time.monotonic() - started < 20
        time.sleep(0.05)
    return time.monotonic() - started


def test_it_follows_and_never_goes_back(replicated, service):
    write_until_done(service, "before")
    switchover(replicated.place, "standby")
    assert write_until_done(service, "after-switchover") < 10
    # Its first writes may be earlier than its epoch; each request looks, once a second.
    wait_until(lambda: service.is_ready() and service.epoch() == 2, 10, "the new epoch is never noticed")

    replicated.server("standby").stop(ShutdownMode.IMMEDIATE)
    promote(replicated.place, "primary")
    assert write_until_done(service, "after-failover") < 15
    assert "after-failover" in projects(replicated, "primary")

    # The fence lied: the old primary is writable, and the right one is gone for the moment.
    old = replicated.server("standby")
    old.may_be_primary()
    old.start()
    replicated.query("standby", "CREATE TABLE it_takes_writes ()")
    replicated.server("primary").stop()
    response = service.create_project("into-the-wrong-one")
    assert response.status_code == 503
    assert "Retry-After" in response.headers
    assert "into-the-wrong-one" not in projects(replicated, "standby")

    # Both are writable: the later epoch is found, whichever the address names first.
    replicated.server("primary").start()
    found = check_single_primary(replicated.place)
    assert (found.status, found.figures["writable_nodes"]) == (Status.UNHEALTHY, 2)
    write_until_done(service, "into-the-right-one")
    assert "into-the-right-one" in projects(replicated, "primary")
    assert "into-the-right-one" not in projects(replicated, "standby")
    old.stop()
    assert rejoin(replicated.place, "standby").name == "standby"
    assert check_single_primary(replicated.place).status is Status.HEALTHY

    # As after restoring from before all that: refused, until it is adopted.
    epochs = EpochFile(service.storage / "cluster-epoch")
    epochs.raise_to(7)
    assert service.create_project("before-adoption").status_code == 503
    assert adopt(replicated.place, epochs, "restored on purpose") == 8
    write_until_done(service, "adopted")


def test_depot_submit_rides_through_a_failover(replicated, service, tmp_path):
    """Nobody does anything about it: the command waits, and its change is there once."""
    write_until_done(service, "game")
    source = tmp_path / "source"
    source.mkdir()
    (source / "hero.png").write_bytes(b"1")
    signed_in = {"DEPOT_URL": service.url, "DEPOT_TOKEN": service.token, "XDG_CONFIG_HOME": str(tmp_path / "config")}
    command = [sys.executable, "-c", "from depot_api.cli import main; main()", "submit", source]
    replicated.server("primary").stop(ShutdownMode.IMMEDIATE)
    with subprocess.Popen(
        [*command, "-p", "game", "-b", "main", "-m", "through"],
        env={**os.environ, **signed_in},
        stderr=subprocess.PIPE,
        text=True,
    ) as submitting:
        log = tmp_path / "api.log"
        wait_until(lambda: "database error" in log.read_text(), 30, "it was refused nothing")
        promote(replicated.place, "standby")
        _, complaints = submitting.communicate(timeout=90)
    assert submitting.returncode == 0, complaints
    assert replicated.query("standby", "SELECT count(*) FROM changelists WHERE description = 'through'") == [(1,)]
