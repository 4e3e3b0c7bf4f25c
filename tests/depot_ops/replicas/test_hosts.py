"""Servers that only the primary's address names, as those of containers: who takes writes, and who lags, is seen."""

import json
import subprocess
import sys

import dagster as dg
import pytest

from depot_ops.evidence import Status
from depot_ops.metrics.exposition import exposition
from depot_ops.metrics.probes import Watcher, configured_probes
from depot_ops.replicas.health import Limits
from depot_ops.replicas.hosts import check_single_host, watch_hosts, watched_hosts
from depot_ops.replicas.server import ShutdownMode
from depot_ops.resources import Replicas
from depot_ops.sensors import replica_sensors
from depot_ops.settings import FailoverProvider, MetricsSettings


@pytest.mark.parametrize(
    ("hosts", "names"),
    [
        ("db:5432,standby:5432", ["db", "standby"]),
        ("db.example.com,127.0.0.1", ["db_example_com", "127_0_0_1"]),
        ("127.0.0.1:1,127.0.0.1:2", ["127_0_0_1_1", "127_0_0_1_2"]),
        ("db:5432,db:5432", []),
        ("db", []),
        ("db:many,standby:many", []),
    ],
)
def test_names_of_hosts(hosts, names):
    url = f"postgresql://postgres:secret@{hosts}/postgres?target_session_attrs=primary"
    assert list(watched_hosts(url)) == names
    assert all("target_session_attrs=any" in address for address in watched_hosts(url).values())


def test_two_primaries_and_a_standby_that_is_gone_are_seen(replicated, monkeypatch):
    """As the check, as metrics, and by the sensor of Dagster."""
    url = replicated.place.url
    primary, standby = (f"127_0_0_1_{replicated.node(name).port}" for name in ("primary", "standby"))
    assert check_single_host(url).status is Status.HEALTHY
    lags = {watched.name: watched.finding() for watched in watch_hosts(url, Limits())}
    assert {name: (found.status, found.figures["role"]) for name, found in lags.items()} == {
        primary: (Status.HEALTHY, "primary"),
        standby: (Status.HEALTHY, "standby"),
    }
    assert lags[standby].figures["lag_bytes"] == 0

    replicated.query("standby", "SELECT pg_promote()")
    found = check_single_host(url)
    assert (found.status, found.figures["writable_nodes"]) == (Status.UNHEALTHY, 2)
    monkeypatch.delenv("REPLICA_DIR", raising=False)
    monkeypatch.setenv("DEPOT_REPLICATION_URL", url)
    watcher = Watcher([one for one in configured_probes(MetricsSettings()) if one.name == "single_primary"])
    watcher.refresh()
    assert 'depot_ops_primaries{node=""} 2.0' in exposition(watcher.seen())
    (sensor,) = replica_sensors(FailoverProvider.ASSISTED, [primary, standby])
    told = sensor(dg.build_sensor_context(resources={"replicas": Replicas(url=url)})).asset_events
    judged = {event.check_name: event.passed for event in told if isinstance(event, dg.AssetCheckEvaluation)}
    assert (judged["single_primary"], judged["synchronous_replication"]) == (False, True)

    replicated.server("standby").stop(ShutdownMode.IMMEDIATE)
    assert check_single_host(url).status is Status.HEALTHY, "where nobody listens, nobody takes writes"
    lags = {watched.name: watched.finding().status for watched in watch_hosts(url, Limits())}
    assert lags == {primary: Status.HEALTHY, standby: Status.UNKNOWN}


def test_definitions_watch_what_the_address_names():
    program = (
        "import json; from depot_ops.definitions import defs;"
        "print(json.dumps([s.name for s in defs.sensors] + sorted(k.to_user_string() for k in"
        " defs.resolve_asset_graph().get_all_asset_keys())))"
    )
    url = "postgresql://postgres@db:5432,standby:5432/postgres?target_session_attrs=primary"
    environment = {"DEPOT_REPLICATION_URL": url, "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout))
    assert {"replica_lag", "replica/db", "replica/standby", "writable_primary"} <= loaded
    assert "primary_health" not in loaded, "nothing here promotes a server that no directory of nodes knows"
