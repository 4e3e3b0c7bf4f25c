"""Writers add numbered items to a set through the depot while servers and links fail: what was acknowledged stays.

As Jepsen's set test. `lost` is what was acknowledged and is not there, `unexpected` what is there and was never sent.
In the synchronous modes nothing is lost, whichever may stop or degrade; in the asynchronous one no more than what each
promotion stated. A prober tries to write to every server all the time: the one that takes writes changes only when
somebody was promoted. `make torture SEED=n TORTURE_SECONDS=n` runs it for longer; CI runs it for seconds.
"""

import itertools
import os
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psycopg
import pytest

from depot_api.epochs import FILE_NAME, EpochFile
from depot_ops.local.ports import any_free
from depot_ops.replicas.create import Place, create
from depot_ops.replicas.failover import forget, promote
from depot_ops.replicas.nodes import HERE, Node, ReplicaError
from depot_ops.replicas.promotion import Refused, switchover
from depot_ops.replicas.rejoin import rejoin
from depot_ops.replicas.server import STOP_TIMEOUT_SECONDS, ShutdownMode, wait_until
from depot_ops.replicas.synchronous import Commit, Policy, recorded, switch, tend
from tests.depot_ops.replicas.conftest import Replication, primary_of, seed  # noqa: F401 (a fixture)
from tests.torture.conftest import KillableService
from tests.torture.links import Link, LinkState

SEED = int(os.environ.get("SEED", "1"))
SECONDS = float(os.environ.get("TORTURE_SECONDS", "3")) / 3
WRITERS = 3
COMMIT_TIMEOUT_SECONDS = 1.0
TEND_SECONDS = 0.2
PROBE_SECONDS = 0.05
BYTES_OF_AN_ITEM = 500  # of log, at least
NODES = ("primary", "standby")


@dataclass(frozen=True, slots=True)
class LinkedPlace(Place):
    """Where standbys reach their primary through links."""

    links: dict[int, Link] = field(default_factory=dict)

    def settings(self, node: Node, primary_port: int, host: str = HERE) -> dict[str, str]:
        return super(LinkedPlace, self).settings(node, self.link(primary_port).port, host)

    def link(self, port: int) -> Link:
        if port not in self.links:
            self.links[port] = Link(port)
        return self.links[port]


@dataclass
class Item:
    name: str
    acknowledged: bool = False


class Writer(threading.Thread):
    """Adds items, each tried under its own key until it is acknowledged or given up."""

    def __init__(self, world: "World", rng: random.Random, name: str) -> None:
        super().__init__(daemon=True)
        self.world, self.rng, self.item_names = world, rng, name
        self.items: list[Item] = []
        self.over = threading.Event()

    def run(self) -> None:
        with httpx.Client(base_url=self.world.service.url, timeout=20) as http:
            while not self.over.is_set():
                item = Item(f"{self.item_names}-{len(self.items)}")
                self.items.append(item)
                headers = {"Authorization": f"Bearer {self.world.token}", "Idempotency-Key": item.name}
                body = {**self.world.where, "description": item.name}
                for _ in range(self.rng.choice((1, 3, 10))):
                    with suppress(httpx.TransportError):
                        response = http.post("/changelists", json=body, headers=headers)
                        assert response.status_code in (201, 503), response.text
                        item.acknowledged = response.status_code == 201
                    if item.acknowledged or self.over.wait(0.02):
                        break


class Prober(threading.Thread):
    """Tries to write to one server; `taken` has when it did."""

    def __init__(self, conninfo: str) -> None:
        super().__init__(daemon=True)
        self.conninfo = conninfo + " connect_timeout=2 options='-c synchronous_commit=local'"
        self.taken: list[float] = []
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(PROBE_SECONDS):
            with suppress(psycopg.Error), psycopg.connect(self.conninfo, autocommit=True) as connection:
                while not self.over.wait(PROBE_SECONDS):
                    connection.execute("SELECT pg_logical_emit_message(true, 'probe', '')")
                    self.taken.append(time.monotonic())


class World:
    """Two servers, their links, the service, and what is done to them."""

    def __init__(self, replication: Replication, service: KillableService, token: str, rng: random.Random) -> None:
        self.replication, self.service, self.token, self.rng = replication, service, token, rng
        self.place = replication.place
        self.epochs = EpochFile(Path(service.environment["ASSET_STORAGE_PATH"]) / FILE_NAME)
        self.leader, self.follower = NODES
        headers = {"Authorization": f"Bearer {token}"}
        project = httpx.post(f"{service.url}/projects", json={"name": "set"}, headers=headers).raise_for_status().json()
        self.where = {"project_id": project["id"], "branch_id": project["default_branch_id"]}
        self.promotions = 0
        self.lost_bytes = 0
        self.log: list[str] = []

    def signal_all(self, name: str, number: signal.Signals) -> None:
        for pid in self.place.server(self.place.nodes.get(name))._processes():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self, name: str) -> None:
        data = self.place.nodes.get(name).data
        with suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int((data / "postmaster.pid").read_text().splitlines()[0]), signal.SIGKILL)

    # Faults: each leaves something that `mend` puts right.

    def primary_killed(self) -> None:
        self.kill(self.leader)

    def primary_hung(self) -> None:
        self.signal_all(self.leader, signal.SIGSTOP)

    def standby_killed(self) -> None:
        self.kill(self.follower)

    def standby_hung(self) -> None:
        self.signal_all(self.follower, signal.SIGSTOP)

    def receiver_hung(self) -> None:
        with suppress(psycopg.Error):
            for (pid,) in self.replication.query(self.follower, "SELECT pid FROM pg_stat_wal_receiver"):
                os.kill(pid, signal.SIGSTOP)

    def service_killed(self) -> None:
        self.service.kill()
        self.service.start()

    def link_cut(self) -> None:
        self.link(LinkState.CUT)

    def link_stalled(self) -> None:
        self.link(LinkState.STALLED)

    def link_one_way(self) -> None:
        self.link(LinkState.ONE_WAY)

    def switched_over(self) -> None:
        with suppress(ReplicaError, psycopg.Error):
            switchover(self.place, self.follower, self.epochs)
            self.promoted()

    def link(self, state: LinkState) -> None:
        self.place.link(self.place.nodes.get(self.leader).port).turn(state)

    def promoted(self) -> None:
        self.promotions += 1
        self.leader, self.follower = self.follower, self.leader

    # What an operator does then.

    def mend(self, primary_is_lost: bool) -> None:
        self.signal_all(self.follower, signal.SIGCONT)
        if primary_is_lost:
            self.fail_over()
        for link in self.place.links.values():
            link.turn(LinkState.OPEN)
        follower = self.place.server(self.place.nodes.get(self.follower))
        if self.place.nodes.half_rewound(follower.node).exists() or not follower.control().is_of_standby:
            rejoin(self.place, self.follower)
        elif not follower.is_running():
            follower.start()
        wait_until(self.streams, 30, f"{self.follower} does not stream; SEED={SEED}: {', '.join(self.log)}")

    def fail_over(self) -> None:
        follower = self.place.server(self.place.nodes.get(self.follower))
        if not follower.is_running():
            follower.start()
        try:
            done = promote(self.place, self.follower, self.epochs)
        except Refused as refusal:
            # What was acknowledged may be missing there: the primary is started again instead.
            self.log.append(f"refused: {refusal}")
            leader = self.place.server(self.place.nodes.get(self.leader))
            leader.stop(ShutdownMode.IMMEDIATE)
            leader.may_be_primary()
            leader.start()
            forget(self.place)
            return
        self.lost_bytes += done.lost_bytes or 0
        self.promoted()

    def streams(self) -> bool:
        with suppress(psycopg.Error):
            return self.replication.query(self.follower, "SELECT status FROM pg_stat_wal_receiver") == [("streaming",)]
        return False

    def tend_until(self, over: threading.Event) -> None:
        """As `depot-ops replica keep-synchronous` does."""
        while not over.wait(TEND_SECONDS):
            with suppress(ReplicaError, psycopg.Error):
                tend(self.place.nodes, self.place.url)


FAULTS: list[tuple[Callable[[World], None], bool]] = [
    (World.primary_killed, True),
    (World.primary_hung, True),
    (World.standby_killed, False),
    (World.standby_hung, False),
    (World.receiver_hung, False),
    (World.service_killed, False),
    (World.link_cut, False),
    (World.link_stalled, False),
    (World.link_one_way, False),
    (World.switched_over, False),
]


@contextmanager
def running_service(replication: Replication, storage: Path) -> Iterator[tuple[KillableService, str]]:
    token = f"depot_{secrets.token_hex(32)[:43]}"
    environment = {
        **os.environ,
        "DATABASE_URL": replication.multi_host_url("depot_service"),
        "DATABASE_OWNER_URL": replication.multi_host_url("depot_owner"),
        "JWT_SECRET": secrets.token_hex(32),
        "ASSET_STORAGE_PATH": str(storage),
        "COMMIT_TIMEOUT_SECONDS": str(COMMIT_TIMEOUT_SECONDS),
        "DEPOT_ADMIN_PASSWORD": "a-good-password-for-tests",
        "DEPOT_API_TOKEN": token,
    }
    storage.mkdir()
    tool = [sys.executable, "-m", "depot_api.identity"]
    subprocess.run([*tool, "create-admin", "--username", "admin"], env=environment, check=True, capture_output=True)
    arguments = ["create-token", "--username", "admin", "--name", "t", "--scope", "admin", "--days", "1"]
    subprocess.run([*tool, *arguments], env=environment, check=True, capture_output=True)
    url = f"http://127.0.0.1:{any_free()}"
    service = KillableService(url, environment["DATABASE_OWNER_URL"], environment, storage.parent / "api.log")
    service.start()
    try:
        yield service, token
    finally:
        service.kill()


@contextmanager
def running(threads: list[threading.Thread], overs: list[threading.Event]) -> Iterator[None]:
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for over in overs:
            over.set()
        for thread in threads:
            thread.join(30)


@pytest.fixture
def world(seed: Path, reachable_dir: Path, tmp_path: Path) -> Iterator[World]:  # noqa: F811
    directory = Path(tempfile.mkdtemp(dir=reachable_dir))
    directory.chmod(0o711)
    with primary_of(seed, directory) as replication:
        plain = replication.place
        replication.place = place = LinkedPlace(plain.nodes, plain.url, plain.binaries, plain.account)
        create(place, "standby")
        replication.place = LinkedPlace(
            place.nodes, replication.multi_host_url(), place.binaries, place.account, links=place.links
        )
        with running_service(replication, tmp_path / "storage") as (service, token):
            made = World(replication, service, token, random.Random(SEED))
            yield made
            for name in NODES:
                made.signal_all(name, signal.SIGCONT)
        for link in place.links.values():
            link.close()


def test_nothing_acknowledged_is_lost(world, monkeypatch):
    monkeypatch.setitem(STOP_TIMEOUT_SECONDS, ShutdownMode.IMMEDIATE, 1)
    print(f"SEED={SEED} TORTURE_SECONDS={SECONDS * 3:g}")
    for policy in (Policy.STOP, Policy.DEGRADE, Policy.OFF):
        run(world, policy)
    refuse_what_no_standby_confirms(world)


def refuse_what_no_standby_confirms(world: World) -> None:
    """Neither at first, nor when it is replayed: the first attempt is on the primary by then, and only there."""
    switch(world.place.nodes, world.place.url, Policy.STOP, Commit.ON, degrade_after_seconds=0)
    follower = world.place.server(world.place.nodes.get(world.follower))
    follower.stop()
    headers = {"Authorization": f"Bearer {world.token}", "Idempotency-Key": "unconfirmed"}
    body = {**world.where, "description": "unconfirmed"}

    def attempt() -> httpx.Response:
        return httpx.post(f"{world.service.url}/changelists", json=body, headers=headers, timeout=20)

    for _ in range(2):
        answer = attempt()
        assert answer.status_code == 503, answer.text
        assert "No standby has confirmed" in answer.json()["detail"]
        assert "Retry-After" in answer.headers
    there = "SELECT count(*) FROM changelists WHERE description = 'unconfirmed'"
    assert world.replication.query(world.leader, there) == [(1,)]
    follower.start()
    wait_until(lambda: attempt().status_code == 201, 20, "it is not acknowledged")
    assert world.replication.query(world.follower, there) == [(1,)]


def run(world: World, policy: Policy) -> None:
    nodes, log = world.place.nodes, world.log
    switch(nodes, world.place.url, policy, world.rng.choice(list(Commit)), degrade_after_seconds=0.5)
    log.append(f"{policy}: {recorded(nodes).commit}")
    promotions, world.lost_bytes = world.promotions, 0
    writers = [Writer(world, random.Random(f"{SEED} {n}"), f"{policy}-{n}") for n in range(WRITERS)]
    probers = {name: Prober(world.replication.conninfo(name)) for name in NODES}
    over = threading.Event()
    tender = threading.Thread(target=world.tend_until, args=(over,), daemon=True)
    faults = []
    with running(
        [*writers, *probers.values(), tender], [*(thread.over for thread in (*writers, *probers.values())), over]
    ):
        ends_at = time.monotonic() + SECONDS
        while time.monotonic() < ends_at:
            time.sleep(world.rng.uniform(0.1, 0.5))
            # The first time always a promotion in the midst of something else.
            first = [world.rng.choice(FAULTS[2:]), world.rng.choice(FAULTS[:2])]
            chosen = world.rng.sample(FAULTS, world.rng.choice((1, 1, 2))) if faults else first
            for fault, _ in chosen:
                log.append(fault.__name__)
                fault(world)
                time.sleep(world.rng.uniform(0.0, 0.8))
            world.mend(primary_is_lost=any(lost for _, lost in chosen))
            faults.append(chosen)
    judge(world, policy, writers, probers, world.promotions - promotions)


def judge(world: World, policy: Policy, writers: list[Writer], probers: dict[str, Prober], promotions: int) -> None:
    told = f"SEED={SEED}: {', '.join(world.log)}"
    names = [name for (name,) in world.replication.query(world.leader, "SELECT description FROM changelists")]
    there = {name for name in names if name.startswith(f"{policy}-")}
    items = [item for writer in writers for item in writer.items]
    acknowledged = {item.name for item in items if item.acknowledged}
    lost, unexpected = acknowledged - there, there - {item.name for item in items}
    print(f"{policy}: {len(acknowledged)} of {len(items)} acknowledged, {len(lost)} lost, {promotions} promotions")
    assert acknowledged, told
    assert not unexpected, told
    assert len(names) == len(set(names)), f"something is there twice; {told}"
    if policy is Policy.OFF:
        assert len(lost) * BYTES_OF_AN_ITEM <= world.lost_bytes, f"{sorted(lost)} lost; {told}"
    else:
        assert not lost, f"{sorted(lost)} lost; {told}"
    taken = sorted((at, name) for name, prober in probers.items() for at in prober.taken)
    changes = sum(1 for (_, one), (_, other) in itertools.pairwise(taken) if one != other)
    assert taken, told
    assert changes <= promotions, f"two servers took writes; {told}"
