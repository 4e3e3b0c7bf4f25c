"""What Dagster shows of the servers: the sensor observes and judges, and starts nothing."""

import json
import subprocess
import sys

import dagster as dg

from depot_ops.replicas.server import ShutdownMode
from depot_ops.replicas.watch import LAG
from depot_ops.resources import Replicas
from depot_ops.sensors import replica_sensors
from depot_ops.settings import FailoverProvider


def tick(pair, names=("primary", "standby")):
    """One tick of the sensor: figures and the lag's check by node, and the checks of them all by name."""
    (sensor,) = replica_sensors(FailoverProvider.ASSISTED, names)
    context = dg.build_sensor_context(resources={"replicas": Replicas(url=pair.place.url)})
    events = sensor(context).asset_events
    observed = {event.asset_key.path[-1]: event for event in events if isinstance(event, dg.AssetObservation)}
    checks = [event for event in events if isinstance(event, dg.AssetCheckEvaluation)]
    judged = {one.asset_key.path[-1] if one.check_name == LAG else one.check_name: one for one in checks}
    return observed, judged


def test_every_server_is_observed_and_a_broken_stream_is_red_and_not_zero(pair, monkeypatch):
    monkeypatch.setenv("REPLICA_DIR", str(pair.place.nodes.directory))
    monkeypatch.setenv("DEPOT_REPLICATION_URL", pair.place.url)
    observed, judged = tick(pair)
    assert {name: event.passed for name, event in judged.items()} == {
        "primary": True,
        "standby": True,
        "single_primary": True,
        "synchronous_replication": True,
        "assisted_failover": True,
    }
    assert observed["standby"].metadata["lag_bytes"].value == 0
    assert observed["standby"].metadata["lag_seconds"].value < 60
    assert observed["primary"].metadata["role"].value == "primary"

    pair.server("primary").stop(ShutdownMode.IMMEDIATE)
    observed, judged = tick(pair)
    assert not judged["standby"].passed
    assert not judged["primary"].passed
    assert not judged["single_primary"].passed
    assert "lag_bytes" not in observed["standby"].metadata
    assert "lag_seconds" not in observed["standby"].metadata

    broken = pair.place.nodes.directory / "broken.json"
    broken.write_text("{")
    try:
        _, judged = tick(pair)
    finally:
        broken.unlink()
    assert judged["standby"].metadata["status"].value == judged["primary"].metadata["status"].value == "unknown"


def test_definitions_with_nodes(pair):
    program = (
        "import json; from depot_ops.definitions import defs;"
        "print(json.dumps([s.name for s in defs.sensors] + sorted(k.to_user_string() for k in"
        " defs.resolve_asset_graph().get_all_asset_keys()) + [str(len(defs.asset_checks))]))"
    )
    environment = {"REPLICA_DIR": str(pair.place.nodes.directory), "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout)
    assert {"replica_lag", "primary_health", "replica/primary", "replica/standby", "writable_primary"} <= set(loaded)
