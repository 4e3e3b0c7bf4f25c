"""Idle is not lag, behind is told in bytes and seconds, and what is broken or cannot be asked is never zero."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from depot_ops.postgres.standby import ask_standby
from depot_ops.replicas.create import create, remove
from depot_ops.replicas.health import Limits, ReplicaStatus, check_replica
from depot_ops.replicas.server import ShutdownMode, wait_until
from depot_ops.replicas.streaming import connected, drop_slot

QUICK = Limits(arrival_seconds=0.5)


def check(pair, limits: Limits = QUICK):
    return check_replica(pair.conninfo("standby", "postgres"), pair.place.url, limits)


@pytest.fixture
def paused(pair):
    """Nothing is replayed, while the stream goes on."""
    pair.query("standby", "SELECT pg_wal_replay_pause()")
    wait_until(
        lambda: pair.query("standby", "SELECT pg_get_wal_replay_pause_state()") == [("paused",)],
        10,
        "it does not pause",
    )
    yield
    pair.query("standby", "SELECT pg_wal_replay_resume()")
    wait_until(lambda: check(pair).lag_bytes == 0, 20, "it does not catch up")


def test_an_idle_primary_is_not_lag(pair):
    check(pair)
    time.sleep(1.5)
    health = check(pair, Limits(lag_seconds=1.0))
    assert health.status is ReplicaStatus.HEALTHY
    assert health.lag_seconds < 1
    assert health.lag_bytes == 0
    assert (health.receiver, health.slot, health.timeline) == ("streaming", "active, reserved", 1)


def test_behind_in_bytes(pair, paused):
    pair.query("primary", "SELECT pg_logical_emit_message(false, 'x', repeat('x', 100000))")
    health = check(pair, Limits(lag_bytes=50_000, arrival_seconds=0))
    assert health.status is ReplicaStatus.LAGGING
    assert health.lag_bytes > 100_000
    assert "bytes behind" in health.reason


def test_behind_in_seconds_counts_from_the_oldest_beat_that_did_not_arrive(pair, paused):
    assert check(pair, Limits(arrival_seconds=0)).status is ReplicaStatus.HEALTHY
    time.sleep(1.2)
    health = check(pair, Limits(lag_seconds=1.0, arrival_seconds=0))
    assert health.status is ReplicaStatus.LAGGING
    assert 1.2 <= health.lag_seconds < 10
    assert health.heartbeat_age_seconds > health.lag_seconds


@pytest.fixture
def fed(pair):
    """A standby of the standby: its slot is there, and none at the primary."""
    create(pair.place, "fed")
    node, feeder = pair.node("fed"), pair.node("standby")
    pair.query("standby", "SELECT pg_create_physical_replication_slot(%s)", node.slot)
    pair.server("fed").configure(pair.place.settings(node, feeder.port))
    pair.query("fed", "SELECT pg_reload_conf()")
    sender = "SELECT sender_port FROM pg_stat_wal_receiver WHERE status = 'streaming'"
    wait_until(lambda: pair.query("fed", sender) == [(feeder.port,)], 20, "it does not stream from there")
    with connected(pair.place.url) as primary:
        drop_slot(primary, node.slot)
    yield pair.conninfo("fed", "postgres"), f"127.0.0.1:{feeder.port}"
    remove(pair.place, "fed")
    with connected(pair.conninfo("standby", "postgres")) as standby:
        drop_slot(standby, node.slot)


def test_what_another_standby_feeds_is_judged_by_what_comes_through_it(pair, fed):
    url, feeder = fed
    health = check_replica(url, pair.place.url, Limits())
    assert (health.status, health.sender, health.slot) == (ReplicaStatus.HEALTHY, feeder, None)
    pair.query("fed", "SELECT pg_wal_replay_pause()")
    health = check_replica(url, pair.place.url, QUICK)
    assert (health.status, "is missing" in health.reason) == (ReplicaStatus.DISCONNECTED, True)


def test_what_streams_on_another_timeline_is_not_healthy(pair, monkeypatch):
    module = "depot_ops.replicas.health"
    assert check(pair).status is ReplicaStatus.HEALTHY
    monkeypatch.setattr(f"{module}.ask_standby", lambda url: replace(ask_standby(url), timeline=7))
    health = check(pair)
    assert (health.status, "timeline 7" in health.reason) == (ReplicaStatus.DISCONNECTED, True)


def test_without_the_primary_s_address_only_bytes_are_known(pair):
    health = check_replica(pair.conninfo("standby", "postgres"))
    assert health.status is ReplicaStatus.HEALTHY
    assert health.lag_seconds is None


def test_a_server_that_takes_writes_is_no_standby(pair):
    health = check_replica(pair.place.url, pair.place.url, QUICK)
    assert health.status is ReplicaStatus.DISCONNECTED
    assert "takes writes" in health.reason


def test_nobody_there_is_unknown(pair):
    health = check_replica("postgresql://postgres:hidden@127.0.0.1:1/postgres", pair.place.url, QUICK)
    assert health.status is ReplicaStatus.UNKNOWN
    assert "hidden" not in health.model_dump_json()


def test_a_role_that_may_not_look(pair):
    pair.query("primary", "CREATE ROLE curious LOGIN PASSWORD 'curious'")
    wait_until(lambda: bool(pair.query("standby", "SELECT 1 FROM pg_roles WHERE rolname = 'curious'")), 10, "no role")
    url = pair.conninfo("standby", "postgres") + " user=curious password=curious"
    assert check_replica(url, pair.place.url, QUICK).status is not ReplicaStatus.HEALTHY


def test_the_command_prints_one_line_and_appends_it(pair, tmp_path):
    log = tmp_path / "replica.log"
    environment = {
        **os.environ,
        "DEPOT_REPLICATION_URL": pair.place.url,
        "DEPOT_REPLICA_URL": pair.conninfo("standby", "postgres"),  # it has a password, which ps would show
        "LOGGER_PATH": str(log),
    }
    command = [sys.executable, "-m", "depot_ops", "replica", "check"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "healthy"
    assert done.stdout.count("\n") == 1
    assert log.read_text() == done.stdout


# These leave the pair without its primary's stream, and come last.


def test_a_stopped_receiver_is_never_zero(pair):
    assert check(pair).status is ReplicaStatus.HEALTHY
    password = pair.place.nodes.passfile(pair.node("standby"))
    kept = password.read_text()
    password.write_text("")
    pair.query("primary", "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_replication")
    pair.query("primary", "SELECT pg_logical_emit_message(true, 'x', repeat('x', 100000))")
    health = check(pair)
    password.write_text(kept)
    assert health.status is ReplicaStatus.DISCONNECTED
    assert health.lag_bytes > 100_000
    assert health.status.exit_code == 4
    wait_until(lambda: check(pair).status is ReplicaStatus.HEALTHY, 20, "it does not stream again")


def test_a_hung_primary_is_unknown(pair):
    """Not dead: it listens, and answers nobody."""
    pid = int((pair.primary.data / "postmaster.pid").read_text().splitlines()[0])
    os.kill(pid, signal.SIGSTOP)
    try:
        url = pair.place.url + "?connect_timeout=2"
        health = check_replica(pair.conninfo("standby", "postgres"), url, QUICK)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert health.status is ReplicaStatus.UNKNOWN
    assert health.lag_bytes is None


def test_a_dead_primary(pair):
    pair.server("primary").stop(ShutdownMode.IMMEDIATE)
    health = check(pair)
    assert health.status is ReplicaStatus.DISCONNECTED
    assert (health.lag_bytes, health.lag_seconds) == (None, None)
