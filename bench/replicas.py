"""Replicas of a cluster of two gigabytes: made, switched over to, lost by kill -9, replaced through Dagster, rejoined.

The depot's servers run by themselves, as on hosts of their own; service, Dagster's daemon and its storage are real.
It is killed, and switched over, `failovers` times, 20 in a full run.
"""

import hashlib
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psycopg

from bench.backups import FILL, ROWS_OF_A_GIGABYTE
from bench.results import Results, timed
from depot_api.database.bootstrap import ROLES
from depot_ops.local.ports import any_free
from depot_ops.local.stack import DAGSTER_SETTINGS, PROJECT_ROOT
from depot_ops.postgres.accounts import runnable_binaries, server_account
from depot_ops.postgres.binaries import find_binaries
from depot_ops.postgres.client_tools import client_environment
from depot_ops.postgres.cluster import Cluster, archiving
from depot_ops.replicas.create import PRIMARY, Place, create, remove
from depot_ops.replicas.failover import under_way
from depot_ops.replicas.nodes import Node, Nodes, ReplicaBusy, ReplicaError
from depot_ops.replicas.promotion import switchover
from depot_ops.replicas.rejoin import Way, rejoin
from depot_ops.replicas.server import ShutdownMode, wait_until

PASSWORD = "only-for-the-bench"
TOKEN = "depot_" + "b" * 43
STANDBY = "standby"
SEED = 1
SETTINGS = {"shared_buffers": "128MB", "wal_level": "replica", "max_wal_size": "4GB", "wal_keep_size": "512MB"}
READY_SECONDS = 60.0
PAUSE_SECONDS = 0.1
LOG_CHARACTERS = 20_000
Ports = tuple[int, ...]


@dataclass(eq=False)
class Submitter(threading.Thread):
    """Submits one changelist after the other, as a client that tries again, and remembers when each was told."""

    url: str
    acknowledged: list[tuple[float, float]] = field(default_factory=list)
    """When its submit was sent, and when it was acknowledged."""

    def __post_init__(self) -> None:
        super().__init__()
        self.stopping = threading.Event()

    def run(self) -> None:
        with httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=10) as http:
            project = http.post("/projects", json={"name": "bench"}).raise_for_status().json()
            sha256 = hashlib.sha256(b"bench").hexdigest()
            http.put(f"/projects/{project['id']}/objects/{sha256}", content=b"bench").raise_for_status()
            where = {"project_id": project["id"], "branch_id": project["default_branch_id"]}
            number = 0
            while not self.stopping.wait(PAUSE_SECONDS):
                number += 1
                try:
                    self._submit(http, where, f"f{number}", sha256)
                except httpx.HTTPError:
                    continue

    def _submit(self, http: httpx.Client, where: dict[str, str], path: str, sha256: str) -> None:
        made = http.post("/changelists", json=where).raise_for_status().json()["id"]
        items = {"items": [{"action": "add", "path": path, "sha256": sha256}]}
        http.post(f"/changelists/{made}/items", json=items).raise_for_status()
        sent = time.monotonic()
        http.post(f"/changelists/{made}/submit").raise_for_status()
        self.acknowledged.append((sent, time.monotonic()))

    def first_after(self, moment: float) -> float:
        """Seconds from `moment` to the first acknowledgement of what was sent after it."""
        wait_until(lambda: any(sent > moment for sent, _ in self.acknowledged[-3:]), READY_SECONDS, "nobody submits")
        return next(told for sent, told in self.acknowledged if sent > moment) - moment


@contextmanager
def submitting(url: str) -> Iterator[Submitter]:
    """Somebody who submits all the time, from the first acknowledgement on."""
    submitter = Submitter(url)
    submitter.start()
    try:
        wait_until(lambda: len(submitter.acknowledged) > 0, READY_SECONDS, "nobody submits")
        yield submitter
    finally:
        submitter.stopping.set()
        submitter.join()


def bench_replicas(results: Results, work: Path, gigabytes: float, rounds: int, failovers: int) -> None:
    """`gigabytes` is two in a full run."""
    with ExitStack() as running:
        place, ports = running.enter_context(_primary(work, gigabytes))
        _bench_creation(results, place, ports[1], work, rounds)
        url = running.enter_context(service(ports, work))
        running.enter_context(_daemon(place, work, url))
        submitter = running.enter_context(submitting(url))
        _bench_switchover(results, place, submitter, failovers)
        _bench_failover(results, place, submitter, failovers)


def _bench_creation(results: Results, place: Place, port: int, work: Path, rounds: int) -> None:
    """Leaves a standby."""
    primary = place.nodes.get(PRIMARY)
    command = [place.binaries.path("pg_basebackup"), "--checkpoint=fast", "--wal-method=stream", "--pgdata"]
    environment = client_environment(primary.conninfo(place.url))
    plain, ours = [], []
    for number in range(rounds):
        if number:
            remove(place, STANDBY)
        target = work / "plain"
        plain.append(timed(lambda: subprocess.run([*command, target], env=environment, check=True)))  # noqa: B023
        shutil.rmtree(target)
        ours.append(timed(lambda: create(place, STANDBY, port)))
    over = statistics.median(mine - 1.2 * baseline for mine, baseline in zip(ours, plain, strict=True))
    measured, baseline = f"{statistics.median(ours):.1f} s", f"pg_basebackup {statistics.median(plain):.1f} s"
    results.add("replica create, streaming", measured, f"≤ 1.2 times + 2 s (here + {over:.1f} s)", baseline)


def _bench_switchover(results: Results, place: Place, submitter: Submitter, times: int) -> None:
    gaps = []
    for number in range(times):
        target = (STANDBY, PRIMARY)[number % 2]
        gaps.append(switchover(place, target, None).write_gap_seconds)
        submitter.first_after(time.monotonic())
    results.add("switchover, write gap", told(gaps), "≤ 2 s")


def _bench_failover(results: Results, place: Place, submitter: Submitter, times: int) -> None:
    """The daemon is struck at any moment of its own rhythm."""
    moments = random.Random(SEED)
    outages, rewinds, straight = [], [], []
    for _ in range(times):
        time.sleep(moments.uniform(0, 5))
        old = _writable(place)
        pid = int((old.data / "postmaster.pid").read_text().splitlines()[0])
        killed = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        outages.append(submitter.first_after(killed))
        wait_until(lambda: under_way(place) is None and _is_free(place.nodes), READY_SECONDS, "it does not end")
        rejoined = rejoin(place, old.name)
        (rewinds if rejoined.way is Way.REWIND else straight).append(rejoined.duration_seconds)
    results.add("kill -9 of the primary to first submit, by Dagster", told(outages), "p95 ≤ 12 s")
    if rewinds:
        results.add("rejoin of the old primary, by rewind", told(rewinds), "≤ 10 s")
    if straight:
        results.add("rejoin of the old primary, nothing to rewind", told(straight), "")


def _is_free(nodes: Nodes) -> bool:
    try:
        with nodes.locked():
            return True
    except ReplicaBusy:
        return False


def told(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    p95 = ordered[max(0, -(-95 * len(ordered) // 100) - 1)]
    return f"median {statistics.median(ordered):.2f} s, p95 {p95:.2f} s of {len(ordered)}"


def _writable(place: Place) -> Node:
    with psycopg.connect(place.url) as connection:
        row = connection.execute("SELECT current_setting('data_directory')").fetchone()
    return next(node for node in place.nodes.all() if row and str(node.data) == row[0])


def stopped_depot(home: Path, gigabytes: float) -> Cluster:
    """A cluster with the depot's schema, an admin with TOKEN, and so many gigabytes beside it."""
    account = server_account()
    binaries = runnable_binaries(find_binaries(), account)
    first = Cluster(home, any_free(), PASSWORD, binaries, account, SETTINGS)
    first.initialize()
    first.start()
    environment = {
        **os.environ,
        "DEPOT_BOOTSTRAP_URL": first.url(),
        **{f"{role.upper()}_PASSWORD": PASSWORD for role in ROLES},
        "DATABASE_OWNER_URL": first.url("depot", "depot_owner"),
        "DEPOT_ADMIN_PASSWORD": PASSWORD,
        "DEPOT_API_TOKEN": TOKEN,
    }
    token = ("create-token", "--username", "admin", "--name", "bench", "--scope", "admin", "--days", "1")
    for module, *arguments in (
        ("depot_api.database", "bootstrap"),
        ("depot_api.database", "upgrade"),
        ("depot_api.identity", "create-admin", "--username", "admin"),
        ("depot_api.identity", *token),
    ):
        command = [sys.executable, "-m", module, *arguments]
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    with psycopg.connect(first.url("depot"), autocommit=True) as connection:
        connection.execute(FILL.replace("%s", str(int(gigabytes * ROWS_OF_A_GIGABYTE))))
        connection.execute("CHECKPOINT")
    first.stop()
    return first


@contextmanager
def _primary(work: Path, gigabytes: float) -> Iterator[tuple[Place, Ports]]:
    first = stopped_depot(work / "first", gigabytes)
    with (first.data / "depot.conf").open("a") as configuration:  # as `make up` runs it, once the table is filled
        archive = archiving(first.home, first.binaries.major)
        configuration.writelines(f"{name} = {value}\n" for name, value in archive.items())
    nodes = Nodes(work / "nodes")
    nodes.prepare()
    node = Node(name=PRIMARY, data=first.data, port=first.port, socket_directories=str(first.home))
    nodes.save(node)
    ports = (node.port, any_free())
    place = Place(nodes, address(ports, "postgres", "postgres", "primary"), first.binaries, first.account)
    place.server(node).start()
    try:
        yield place, ports
    finally:
        for known in nodes.all():
            place.server(known).stop(ShutdownMode.IMMEDIATE)


def address(ports: Ports, user: str, database: str, wanted: str) -> str:
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    return f"postgresql://{user}:{PASSWORD}@{hosts}/{database}?target_session_attrs={wanted}"


@contextmanager
def service(ports: Ports, work: Path) -> Iterator[str]:
    (work / "storage").mkdir()
    port = any_free()
    environment = {
        **os.environ,
        "DATABASE_URL": address(ports, "depot_service", "depot", "read-write"),
        "JWT_SECRET": "j" * 40,
        "ASSET_STORAGE_PATH": str(work / "storage"),
    }
    command = [sys.executable, "-m", "depot_api", "--port", str(port), "--workers", "1"]
    url = f"http://127.0.0.1:{port}"
    with _process(command, environment, work / "api.log"):
        wait_until(lambda: _answers(url), READY_SECONDS, f"the service does not start: see {work / 'api.log'}")
        yield url


@contextmanager
def _daemon(place: Place, work: Path, api_url: str) -> Iterator[None]:
    """Dagster's daemon with every sensor, on a storage server of its own, with assisted failover on."""
    storage = Cluster(work / "dagster", any_free(), PASSWORD, place.binaries, place.account, DAGSTER_SETTINGS)
    storage.initialize()
    storage.start()
    with psycopg.connect(storage.url(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE dagster")
    home = work / "dagster_home"
    home.mkdir()
    shutil.copy(PROJECT_ROOT / "dagster_home" / "dagster.yaml", home)
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "DAGSTER_PG_URL": storage.url("dagster").replace("postgresql://", "postgresql+psycopg2://"),
        "DEPOT_URL": api_url,
        "DEPOT_TOKEN": TOKEN,
        "REPLICA_DIR": str(place.nodes.directory),
        "DEPOT_REPLICATION_URL": place.url,
        "ASSET_STORAGE_PATH": str(work / "storage"),
        "BACKUP_DIR": str(work / "failover-backups"),
        "ASSISTED_FAILOVER": "true",
    }
    command = [sys.executable, "-m", "dagster._daemon", "run", "-w", str(PROJECT_ROOT / "workspace.yaml")]
    try:
        with _process(command, environment, work / "daemon.log"):
            watched = "SELECT count(*) FROM job_ticks WHERE tick_body LIKE '%primary_health%'"
            wait_until(
                lambda: _counted(storage.url("dagster"), watched) > 1,
                READY_SECONDS,
                f"the sensor does not look: see {work / 'daemon.log'}",
            )
            yield
    finally:
        storage.stop()


@contextmanager
def _process(command: list[str], environment: dict[str, str], log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    try:
        yield
    except ReplicaError as error:
        error.add_note(f"the end of {log.name}: {log.read_text()[-LOG_CHARACTERS:]}")
        raise
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(READY_SECONDS)
        with suppress(ProcessLookupError):  # the daemon leaves its code server behind
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _counted(url: str, query: str) -> int:
    try:
        with psycopg.connect(url) as connection:
            row = connection.execute(query).fetchone()
    except psycopg.Error:
        return 0
    return int(row[0]) if row else 0


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).status_code == 200
    except httpx.TransportError:
        return False
