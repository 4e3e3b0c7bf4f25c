"""The same questions and orders through a real Patroni: three members with its own Raft, as deploy/patroni has them."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import httpx
import psycopg
import pytest
from click.testing import Result
from typer.testing import CliRunner

from depot_api.epochs import EpochFile
from depot_ops.cli import app
from depot_ops.evidence import Status
from depot_ops.local.ports import any_free
from depot_ops.postgres.accounts import runnable_binaries, server_account
from depot_ops.postgres.binaries import find_binaries
from depot_ops.replicas import patroni_watch
from depot_ops.replicas.health import Limits, ReplicaStatus
from depot_ops.replicas.patroni import Patroni, PatroniError, TlsFiles
from depot_ops.replicas.patroni_watch import (
    adopt,
    check_single_leader,
    check_synchronous_mode,
    rebuild,
    switch_over,
    watch_members,
)
from depot_ops.replicas.promotion import Refused
from depot_ops.replicas.server import wait_until
from depot_ops.replicas.site import member_names, patroni_of
from depot_ops.replicas.watch import Watched
from depot_ops.resources import Replicas
from depot_ops.sensors import replica_sensors
from depot_ops.settings import FailoverProvider, PatroniSettings, SettingsError, load
from tests.depot_ops.replicas.conftest import PASSWORD
from tests.depot_ops.replicas.patroni_nodes import NAMES, REST_PASSWORD, USERNAME, PatroniNodes, patroni_nodes
from tests.depot_ops.replicas.test_service import Service, running_service

torture = pytest.mark.skipif("TORTURE_SECONDS" not in os.environ, reason="a lease that ends takes 20 s: make torture")


@pytest.fixture(scope="module")
def nodes(seed: Path, reachable_dir: Path) -> Iterator[PatroniNodes]:
    account = server_account()
    binaries = runnable_binaries(find_binaries(), account)
    directory = Path(tempfile.mkdtemp(dir=reachable_dir))
    directory.chmod(0o711)
    with patroni_nodes(seed, directory, PASSWORD, binaries, account) as made:
        yield made


@pytest.fixture
def service(nodes: PatroniNodes, tmp_path: Path) -> Iterator[Service]:
    nodes.wait_until_whole()
    url, owner_url = (nodes.url("depot", user, "read-write") for user in ("depot_service", "depot_owner"))
    with running_service(url, owner_url, tmp_path) as made:
        yield made


def client(nodes: PatroniNodes) -> Patroni:
    return Patroni(tuple(nodes.rest_urls), (USERNAME, REST_PASSWORD))


@pytest.fixture
def environment(nodes: PatroniNodes, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    wanted = {
        "FAILOVER_PROVIDER": "patroni",
        "PATRONI_URLS": " ".join(nodes.rest_urls),
        "PATRONI_RESTAPI_USERNAME": USERNAME,
        "PATRONI_RESTAPI_PASSWORD": REST_PASSWORD,
        "DEPOT_REPLICATION_URL": nodes.url(),
        "ASSISTED_FAILOVER": "1",
    }
    for name, value in wanted.items():
        monkeypatch.setenv(name, value)
    return wanted


def replica(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["replica", *arguments])


def epochs(nodes: PatroniNodes, name: str) -> list[tuple[int, str]]:
    with psycopg.connect(nodes.address(name)) as connection:
        return connection.execute("SELECT epoch, node FROM cluster_epochs ORDER BY epoch").fetchall()


def test_list_check_switchover(nodes, environment):
    first = nodes.leader()
    target, other = (name for name in NAMES if name != first)
    listed = replica("list")
    assert listed.exit_code == 0, listed.stderr
    roles = {line["name"]: line["role"] for line in map(json.loads, listed.stdout.splitlines())}
    assert roles == {first: "primary", target: "standby", other: "standby"}

    healthy = replica("check", target)
    assert healthy.exit_code == 0, healthy.stdout + healthy.stderr
    told = json.loads(healthy.stdout)
    assert (told["status"], told["receiver"]) == ("healthy", "streaming")
    assert told["lag_seconds"] < 60

    by_address = replica("check", nodes.address(target))  # as cron has it
    assert json.loads(by_address.stdout)["status"] == "healthy"
    assert replica("check", first).exit_code == 1
    assert json.loads(replica("check", "nobody").stdout)["status"] == "unknown"

    done = replica("switchover", target)
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["promoted"], told["demoted"]) == (target, first)
    assert epochs(nodes, target)[-1] == (told["epoch"], target)
    nodes.wait_until_whole()
    again = replica("switchover", target)
    assert again.exit_code == 1
    assert "is the primary already" in again.stderr


def test_dagster_watches_and_nothing_of_ours_promotes(nodes, environment):
    names = list(member_names(load(PatroniSettings)).values())
    (sensor,) = replica_sensors(FailoverProvider.PATRONI, names)
    context = dg.build_sensor_context(resources={"replicas": Replicas(url=nodes.url())})
    events = sensor(context).asset_events
    judged = {
        (event.asset_key.path[-1], event.check_name): event.passed
        for event in events
        if isinstance(event, dg.AssetCheckEvaluation)
    }
    assert judged == {
        **{(name, "replica_lag"): True for name in names},
        ("writable_primary", "single_primary"): True,
        ("writable_primary", "synchronous_replication"): True,
    }
    lags = [event.metadata.get("lag_seconds") for event in events if isinstance(event, dg.AssetObservation)]
    assert len([lag for lag in lags if lag is not None]) == len(NAMES) - 1

    program = (
        "import json; from depot_ops.definitions import defs;"
        "print(json.dumps([[s.name for s in defs.sensors], [j.name for j in defs.jobs],"
        " sorted(k.path[-1] for k in defs.resolve_asset_graph().get_all_asset_keys())]))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program],
        env={**environment, "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert loaded.returncode == 0, loaded.stderr
    sensors, jobs, assets = json.loads(loaded.stdout)
    assert "replica_lag" in sensors and "primary_health" not in sensors
    assert "promote_replica" not in jobs
    assert {*names, "writable_primary"} <= set(assets)


@pytest.mark.parametrize("command", ["create", "remove", "promote", "rejoin", "synchronous", "keep-synchronous"])
def test_what_patroni_does_itself_is_refused_with_what_to_do(monkeypatch, command):
    monkeypatch.setenv("FAILOVER_PROVIDER", "patroni")
    refused = replica(command, "pg1", "--accept-data-loss")
    assert refused.exit_code == 1
    assert "Patroni" in refused.stderr and "FAILOVER_PROVIDER" in refused.stderr


def test_refusals_are_told_in_patronis_words(nodes, tmp_path):
    leader = nodes.leader()
    target = next(name for name in NAMES if name != leader)
    stranger = Patroni(tuple(nodes.rest_urls), ("operations", "wrong"))
    with pytest.raises(PatroniError, match="PATRONI_RESTAPI_USERNAME"):
        switch_over(stranger, target, nodes.url())
    with pytest.raises(PatroniError, match="no member nobody answers"):
        switch_over(client(nodes), "nobody", nodes.url())
    with pytest.raises(PatroniError, match="refused /reinitialize"):
        rebuild(client(nodes), leader)
    with pytest.raises(Refused, match="reason"):
        adopt(client(nodes), nodes.url(), EpochFile(tmp_path / "cluster-epoch"), " ")
    assert nodes.leader() == leader


def test_who_does_not_answer_is_unknown(nodes):
    gone = f"http://127.0.0.1:{any_free()}"
    (watched,) = watch_members(Patroni((gone,)), nodes.url(), Limits(), {gone: "gone"})
    assert watched.health is not None and watched.health.status is ReplicaStatus.UNKNOWN
    assert check_single_leader(Patroni((gone,)), nodes.url()).status is Status.UNKNOWN
    # One member's silence does not hide the others.
    found = watch_members(
        Patroni((gone, *nodes.rest_urls)),
        nodes.url(),
        Limits(),
        {gone: "gone", **dict.fromkeys(nodes.rest_urls, "there")},
    )
    assert [one.finding().status for one in found].count(Status.HEALTHY) == len(NAMES)


def test_its_synchronous_mode_is_heeded(nodes):
    patroni = client(nodes)
    assert "is off" in check_synchronous_mode(patroni).detail
    configure(nodes, synchronous_mode=True)
    wait_until(lambda: "commits wait for pg" in check_synchronous_mode(patroni).detail, 20, "nobody is in sync")
    assert check_synchronous_mode(patroni).status is Status.HEALTHY
    configure(nodes, synchronous_mode=False)


def configure(nodes: PatroniNodes, **settings: object) -> None:
    url = nodes.members[nodes.leader()].rest_url
    httpx.patch(f"{url}/config", json=settings, auth=(USERNAME, REST_PASSWORD)).raise_for_status()


def test_an_epoch_that_nobody_began_is_told_and_adopted(nodes, tmp_path, monkeypatch):
    """As when the callback is not configured: the newest epoch is another member's."""
    monkeypatch.setattr(patroni_watch, "EPOCH_SECONDS", 0.2)
    leader = nodes.leader()
    with psycopg.connect(nodes.address(leader)) as connection:
        connection.execute("SELECT begin_cluster_epoch('another', 'a test')")
    found = check_single_leader(client(nodes), nodes.url())
    assert (found.status, "adopt" in found.detail) == (Status.UNHEALTHY, True)
    file = EpochFile(tmp_path / "cluster-epoch")
    file.raise_to(1000)
    assert adopt(client(nodes), nodes.url(), file, "the callback was not there") == 1001
    assert epochs(nodes, leader)[-1] == (1001, leader)
    assert check_single_leader(client(nodes), nodes.url()).status is Status.HEALTHY


def test_settings(monkeypatch, tmp_path):
    monkeypatch.setenv("PATRONI_URLS", "http://pg1:8008/, https://10.0.0.2:8008 http://pg1:8008")
    settings = load(PatroniSettings)
    assert settings.rest_urls == ("http://pg1:8008", "https://10.0.0.2:8008")
    assert member_names(settings) == {"http://pg1:8008": "pg1_8008", "https://10.0.0.2:8008": "10_0_0_2_8008"}
    with pytest.raises(PatroniError, match="PATRONI_CTL_CACERT"):
        TlsFiles(cacert=tmp_path / "none").context()
    monkeypatch.setenv("PATRONI_URLS", "pg1:8008")
    with pytest.raises(SettingsError, match="PATRONI_URLS"):
        load(PatroniSettings)
    monkeypatch.delenv("PATRONI_URLS")
    with pytest.raises(Exception, match="PATRONI_URLS has to be set"):
        patroni_of(load(PatroniSettings))


@torture
def test_a_lost_host(nodes, service):
    """kill -9 of Patroni and its server: the service follows, and nobody but the new primary takes writes."""
    old = nodes.leader()
    submit_until_done(service, "before-the-loss")
    nodes.members[old].kill()
    try:
        submit_until_done(service, "after-the-loss")
        new = nodes.leader()
        assert new not in (None, old)
        assert "after-the-loss" in projects(nodes, new)
        found = check_single_leader(client(nodes), nodes.url(), service.file)
        assert (found.status, found.figures["writable_nodes"]) == (Status.HEALTHY, 1)
        assert (service.file.highest(), new) == epochs(nodes, new)[-1]
        lost = next(one for one in watch(nodes) if one.name == nodes.members[old].rest_url)
        assert lost.health.status is ReplicaStatus.UNKNOWN
    finally:
        nodes.members[old].start()
    nodes.wait_until_whole()


@torture
def test_a_lost_patroni(nodes, service):
    """kill -9 of Patroni alone: its server stays writable, and the epoch keeps the depot away from it."""
    old = nodes.leader()
    submit_until_done(service, "before-the-loss-of-Patroni")
    nodes.members[old].kill_patroni()
    try:
        wait_until(lambda: nodes.leader() is not None, 60, f"nobody takes over: {nodes.logs()}")
        new = nodes.leader()
        found = check_single_leader(client(nodes), nodes.url(), service.file)  # as the sensor does
        assert (found.status, found.figures["writable_nodes"]) == (Status.UNHEALTHY, 2)
        assert f"stop all but {new}" in found.detail
        assert (service.file.highest(), new) == epochs(nodes, new)[-1]
        submit_until_done(service, "into-the-right-one")
        assert "into-the-right-one" in projects(nodes, new)
        assert "into-the-right-one" not in projects(nodes, old)
    finally:
        nodes.members[old].start()  # demotes its server, and rewinds what that has too much
    nodes.wait_until_whole()
    assert check_single_leader(client(nodes), nodes.url()).status is Status.HEALTHY
    assert "into-the-right-one" in projects(nodes, old)


@torture
def test_rebuild(nodes, environment):
    nodes.wait_until_whole()
    name = next(name for name in NAMES if name != nodes.leader())
    before = (nodes.members[name].data / "PG_VERSION").stat().st_ino
    done = replica("rebuild", name)
    assert done.exit_code == 0, done.stderr
    assert (nodes.members[name].data / "PG_VERSION").stat().st_ino != before
    assert nodes.is_whole()


def watch(nodes: PatroniNodes) -> list[Watched]:
    return watch_members(client(nodes), nodes.url(), Limits(), {url: url for url in nodes.rest_urls})


def projects(nodes: PatroniNodes, name: str) -> set[str]:
    with psycopg.connect(nodes.address(name)) as connection:
        return {found for (found,) in connection.execute("SELECT name FROM projects")}


def submit_until_done(service: Service, name: str) -> None:
    """A project of that name with a changelist in it, tried again as the depot's client does."""
    headers = {"Authorization": f"Bearer {service.token}"}
    content = name.encode()
    sha256 = hashlib.sha256(content).hexdigest()

    def submitted() -> bool:
        with httpx.Client(base_url=service.url, headers=headers, timeout=10) as http:
            try:
                made = http.post("/projects", json={"name": name})
                if made.status_code == 409:
                    found = http.get("/projects").raise_for_status().json()["items"]
                    project = next(one for one in found if one["name"] == name)
                else:
                    project = made.raise_for_status().json()
                http.put(f"/projects/{project['id']}/objects/{sha256}", content=content).raise_for_status()
                where = {"project_id": project["id"], "branch_id": project["default_branch_id"]}
                changelist = http.post("/changelists", json=where).raise_for_status().json()["id"]
                items = {"items": [{"action": "add", "path": "a.txt", "sha256": sha256}]}
                http.post(f"/changelists/{changelist}/items", json=items).raise_for_status()
                http.post(f"/changelists/{changelist}/submit").raise_for_status()
            except httpx.HTTPError:
                return False
        return True

    wait_until(submitted, 60, f"{name} is not taken")
