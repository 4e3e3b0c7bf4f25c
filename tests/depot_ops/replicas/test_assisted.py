"""Assisted failover: the sensor decides when the primary is lost and only then, and a run promotes once."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import dagster as dg
import psycopg
import pytest

from depot_ops.evidence import Status
from depot_ops.failover_runs import Memory, failover_sensors, promote_replica
from depot_ops.replicas import failover as steps
from depot_ops.replicas import loss
from depot_ops.replicas.create import create
from depot_ops.replicas.failover import Failover, Terms
from depot_ops.replicas.fencing import CannotFence, fence_by_command
from depot_ops.replicas.loss import Answer, Patience, ask, watch_primary
from depot_ops.replicas.nodes import ReplicaError
from depot_ops.replicas.promotion import Refused
from depot_ops.replicas.rejoin import rejoin
from depot_ops.replicas.server import ShutdownMode, wait_until
from depot_ops.replicas.site import why_not
from depot_ops.reports.failovers import newest_document
from depot_ops.resources import Replicas
from depot_ops.sensors import replica_sensors
from depot_ops.settings import FailoverProvider, FailoverSettings, load
from tests.depot_ops.replicas.test_failover import kill_9

QUICK = Patience(interval_seconds=0.1, watch_seconds=0.3)


@pytest.fixture
def assisted(replicated, storage_url, tmp_path, monkeypatch):
    """A pair in an environment that lets Dagster promote."""
    set_environment(replicated, storage_url, tmp_path, monkeypatch)
    return replicated


def set_environment(replication, storage_url: str, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "storage").mkdir()
    settings = {
        "ASSISTED_FAILOVER": "1",
        "REPLICA_DIR": replication.place.nodes.directory,
        "DEPOT_REPLICATION_URL": replication.multi_host_url(database="postgres"),
        "DAGSTER_PG_URL": storage_url,
        "BACKUP_DIR": tmp_path / "backups",
        "ASSET_STORAGE_PATH": tmp_path / "storage",
        "FAILOVER_INTERVAL_SECONDS": "0.5",
        "FAILOVER_FAILURES": "2",
        "FAILOVER_LOOKS": "2",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr("depot_ops.replicas.site.WATCH_SECONDS", 1.5)


def tick(instance: dg.DagsterInstance, cursor: str | None = None) -> dg.RunRequest | dg.SkipReason:
    (sensor,) = failover_sensors(FailoverProvider.ASSISTED, ["primary", "standby"])
    return sensor(dg.build_sensor_context(instance=instance, cursor=cursor))


def run(instance: dg.DagsterInstance, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
    return promote_replica.execute_in_process(
        run_config=request.run_config, tags=request.tags, instance=instance, raise_on_error=False
    )


def test_a_killed_primary_is_replaced_once_and_documented(assisted, tmp_path):
    with dg.DagsterInstance.ephemeral() as instance:
        healthy = tick(instance)
        assert isinstance(healthy, dg.SkipReason)
        assert "primary takes writes" in healthy.skip_message

        kill_9(assisted, "primary")
        at_work = instance.create_run_for_job(promote_replica).run_id
        assert at_work in tick(instance).skip_message
        instance.delete_run(at_work)
        began = time.monotonic()
        request = tick(instance)
        assert time.monotonic() - began < 10
        assert isinstance(request, dg.RunRequest), request.skip_message
        _, timeline, attempt = request.run_key.split(":")
        assert (timeline, attempt) == ("1", "1")

        assert run(instance, request).success
        assert assisted.query("standby", "SELECT pg_is_in_recovery()") == [(False,)]
        assert (tmp_path / "storage" / "cluster-epoch").read_text() == "2\n"
        page = newest_document(tmp_path / "backups")
        text = page.read_text()
        assert "standby is the primary" in text
        assert "from standby: receiver none" in text
        document = Failover.model_validate_json(page.with_suffix(".json").read_text())
        assert (document.target, document.epoch, document.timeline, document.old_timeline) == ("standby", 2, 2, 1)
        assert list(document.fenced) == ["primary"]

        # A second run of the same, as if two had been asked for: it finds a primary, and touches nothing.
        assert run(instance, request).success
        assert assisted.query("standby", "SELECT max(epoch) FROM cluster_epochs") == [(2,)]
        assert isinstance(tick(instance), dg.SkipReason)

        assert rejoin(assisted.place, "primary").name == "primary"
        kill_9(assisted, "standby")
        request = tick(instance)
        assert request.run_key.split(":")[1:] == ["2", "1"]
        assert run(instance, request).success
        assert assisted.query("primary", "SELECT cluster_epoch()") == [(3,)]


def test_interrupted_after_each_step_it_is_taken_up_again(assisted):
    """Whoever comes begins at the first step, and the depot is promoted once."""
    kill_9(assisted, "primary")
    place = assisted.place
    after = [
        steps.choose,
        steps.fence_suspects,
        steps.verify_fence,
        steps.promote_target,
        lambda place, failover: steps.begin_next_epoch(place, failover, None),
        steps.await_writes,
    ]
    for done in range(len(after) + 1):
        failover = steps.begin(place, Terms())
        for step in after[:done]:
            failover = step(place, failover)
    assert assisted.query("standby", "SELECT max(epoch) FROM cluster_epochs") == [(2,)]
    with dg.DagsterInstance.ephemeral() as instance:
        request = tick(instance)
        assert isinstance(request, dg.RunRequest), request.skip_message
        assert run(instance, request).success
        assert assisted.query("standby", "SELECT max(epoch) FROM cluster_epochs") == [(2,)]
        assert steps.under_way(place) is None
        assert isinstance(tick(instance), dg.SkipReason)

    # The fence is undone by hand afterwards: two take writes.
    old = assisted.server("primary")
    old.may_be_primary()
    old.start()
    (sensor,) = replica_sensors(FailoverProvider.ASSISTED, [node.name for node in place.nodes.all()])
    events = sensor(dg.build_sensor_context(resources={"replicas": Replicas(url=place.url)})).asset_events
    (single,) = [event for event in events if getattr(event, "check_name", "") == "single_primary"]
    assert not single.passed
    assert single.metadata["writable_nodes"].value == 2
    assert single.metadata["status"].value == Status.UNHEALTHY


def test_a_primary_that_comes_back_during_the_failover_is_not_replaced(assisted):
    kill_9(assisted, "primary")
    with dg.DagsterInstance.ephemeral() as instance:
        request = tick(instance)
        begun = steps.choose(assisted.place, steps.begin(assisted.place, Terms()))
        assisted.server("primary").start()
        assert isinstance(tick(instance), dg.SkipReason)
        assert steps.under_way(assisted.place) is None  # else one bad look would be enough from now on
        steps.save(assisted.place, begun)
        assert run(instance, request).success
        assert steps.under_way(assisted.place) is None
        assert isinstance(tick(instance), dg.SkipReason)
    assisted.query("primary", "INSERT INTO written VALUES (1)")

    # It comes back after it was fenced: somebody takes the signal away and starts it.
    kill_9(assisted, "primary")
    failover = steps.fence_suspects(assisted.place, steps.choose(assisted.place, steps.begin(assisted.place, Terms())))
    old = assisted.server("primary")
    old.may_be_primary()
    old.start()
    with pytest.raises(Refused, match="takes writes although it was fenced"):
        steps.promote_target(assisted.place, failover)
    assert assisted.query("standby", "SELECT pg_is_in_recovery()") == [(True,)]


def not_lost(place) -> None:
    raise ReplicaError("it lives")


def test_a_failing_failover_is_left_to_a_person_after_three_attempts(assisted, monkeypatch):
    monkeypatch.setenv("FAILOVER_MAX_LOSS_BYTES", "0")
    passfile = assisted.place.nodes.passfile(assisted.node("standby"))
    passfile.write_text("")
    assisted.query("primary", "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_replication")
    assisted.query("primary", "INSERT INTO written VALUES (1)")
    kill_9(assisted, "primary")
    with dg.DagsterInstance.ephemeral() as instance:
        keys = []
        for _ in range(3):
            request = tick(instance)
            keys.append(request.run_key)
            assert not run(instance, request).success
        given_up = tick(instance)
        # A primary that took writes since is lost anew.
        anew = tick(instance, Memory(well_at=time.time()).model_dump_json())
        keys.append(anew.run_key)
        assert len(set(keys)) == 4
        # What an attempt left behind spares the next one no look.
        assert steps.under_way(assisted.place) is not None
        monkeypatch.setattr("depot_ops.failover_runs.require_loss", not_lost)
        result = run(instance, anew)
        assert "it lives" in result.failure_data_for_node("recheck_primary").error.message
    assert "a person decides" in given_up.skip_message
    assert assisted.query("standby", "SELECT pg_is_in_recovery()") == [(True,)]


def test_a_full_primary_and_one_that_its_standby_hears_are_not_lost(pair):
    place = pair.place
    with contextlib.ExitStack() as connections:
        with pytest.raises(psycopg.OperationalError, match=r"too many clients|remaining connection"):
            for _ in range(100):
                connections.enter_context(psycopg.connect(place.url))
        assert ask(pair.node("primary").conninfo(place.url)) is Answer.REJECTING
        assert watch_primary(place, QUICK).loss is None
    wait_until(lambda: ask(pair.node("primary").conninfo(place.url)) is Answer.WRITABLE, 5, "nobody is let in")

    pid = int((pair.primary.data / "postmaster.pid").read_text().splitlines()[0])
    os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        verdict = watch_primary(place, Patience(interval_seconds=0.1, watch_seconds=8.0))
        assert time.monotonic() - began < 10
    finally:
        os.kill(pid, signal.SIGCONT)
    assert verdict.loss is None
    assert "standby heard of its primary" in verdict.detail


def test_it_is_off_unless_turned_on_and_never_beside_the_storage(pair, storage_url, tmp_path, monkeypatch):
    set_environment(pair, storage_url, tmp_path, monkeypatch)

    def judged() -> tuple[Status, str]:
        found = Replicas(url=pair.place.url).check_assisted()
        return found.status, found.detail

    assert judged() == (Status.HEALTHY, "it is on")
    monkeypatch.delenv("ASSISTED_FAILOVER")
    assert judged()[0] is Status.HEALTHY
    assert "ASSISTED_FAILOVER is off" in str(why_not(load(FailoverSettings), pair.place))
    monkeypatch.setenv("ASSISTED_FAILOVER", "1")
    monkeypatch.setenv("DAGSTER_PG_URL", pair.place.url)
    status, detail = judged()
    assert (status, "on the depot's own server" in detail) == (Status.UNHEALTHY, True)
    monkeypatch.setenv("DAGSTER_PG_URL", "postgresql://nobody@127.0.0.1:1/dagster")
    assert "nobody can tell whether they are one server" in judged()[1]
    monkeypatch.setattr("depot_ops.failover_runs.require_loss", lambda _: loss.Loss(7, 1, ()))
    with dg.DagsterInstance.ephemeral() as instance:
        result = promote_replica.execute_in_process(instance=instance, raise_on_error=False)
        assert "nobody can tell" in result.failure_data_for_node("recheck_primary").error.message


def test_a_standby_that_lets_nobody_in_does_not_keep_the_others_from_being_promoted(pair):
    nodes = pair.place.nodes.all()
    lost = {"primary": Answer.SILENT, "standby": Answer.REJECTING}
    assert loss._nobody_writes(pair.place, nodes, lost)
    assert not loss._nobody_writes(pair.place, nodes, {**lost, "primary": Answer.REJECTING})


def test_looks_of_the_watch_before_count(pair, monkeypatch):
    """What is undecided when a tick has to end is decided in the next one."""
    monkeypatch.setattr(loss, "look", lambda _, nodes: {node.name: Answer.SILENT for node in nodes})
    short = Patience(interval_seconds=0.1, watch_seconds=0.0)
    first = watch_primary(pair.place, short)
    assert first.looks == (True,)
    second = watch_primary(pair.place, short, first.looks)
    assert "no standby answers" in watch_primary(pair.place, short, second.looks).detail


def test_what_may_have_been_told_to_promote_is_fenced_before_another_is(assisted):
    create(assisted.place, "second")
    assisted.follow()
    kill_9(assisted, "primary")
    failover = steps.begin(assisted.place, Terms(), name="standby")
    failover = steps.fence_suspects(assisted.place, steps.choose(assisted.place, failover))
    assert failover.fork_lsn is not None  # what comes next is the promotion, and there the run dies
    again = steps.begin(assisted.place, Terms())
    assert (again.target, again.fork_lsn) == ("standby", None)  # it is measured anew, and was told all the same
    other = steps.begin(assisted.place, Terms(), name="second")
    assert (other.target, other.suspects) == ("second", ("primary", "standby"))
    assisted.query("standby", "SELECT pg_promote()")  # it was told, and is one only now
    with pytest.raises(Refused, match="standby takes writes although nobody promoted it"):
        steps.verify_fence(assisted.place, other)


@pytest.mark.skipif(os.geteuid() != 0, reason="a disk of its own, to be filled, is mounted by root only")
def test_a_full_disk_is_no_loss(assisted):
    """A primary that ended because of it comes back as it was, once it has room."""
    log, server = assisted.primary.data / "pg_wal", assisted.server("primary")
    server.stop()
    disk = assisted.primary.data.parent / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m,mode=0755", "wal", disk], check=True)
    try:
        shutil.copytree(log, disk / "pg_wal", copy_function=shutil.copy2)
        shutil.rmtree(log)
        log.symlink_to(disk / "pg_wal")
        assisted.place.account.own_tree(disk)
        server.start()
        (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free))
        kill_9(assisted, "primary")
        with dg.DagsterInstance.ephemeral() as instance:
            skipped = tick(instance)
            assert "the disk of primary is full" in skipped.skip_message
            assert not promote_replica.execute_in_process(instance=instance, raise_on_error=False).success
        (disk / "filler").unlink()
        server.start()
        assisted.query("primary", "INSERT INTO written VALUES (1)")
    finally:
        server.stop(ShutdownMode.IMMEDIATE)
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ("exit 1", "exit code 1"),
        ("sleep 5", "did not end within"),
        ("exit 0", "but it takes writes"),
    ],
)
def test_a_fence_command_that_proves_nothing_fences_nothing(pair, monkeypatch, script, complaint):
    monkeypatch.setattr("depot_ops.replicas.fencing.SILENCED_SECONDS", 0.2)
    place = replace(pair.place, fence_command=("sh", "-c", script), fence_seconds=1.0)
    remote = pair.node("primary").model_copy(update={"host": "localhost"})
    with pytest.raises(CannotFence, match=complaint):
        fence_by_command(place, remote)


def test_a_remote_primary_is_fenced_by_command(assisted, monkeypatch):
    """It is on this host after all, and reached by another name."""
    nodes = assisted.place.nodes
    nodes.save(assisted.node("primary").model_copy(update={"host": "localhost"}))
    kill_9(assisted, "primary")
    with pytest.raises(Refused, match="set FENCE_COMMAND"):
        steps.promote(assisted.place, "standby")
    with dg.DagsterInstance.ephemeral() as instance:
        # It stops the right one, and does not say how far that got: nobody knows what would be lost.
        monkeypatch.setenv("FENCE_COMMAND", "test {name} = primary")
        assert not run(instance, tick(instance)).success
        assert assisted.query("standby", "SELECT pg_is_in_recovery()") == [(True,)]
        ((received,),) = assisted.query("standby", "SELECT pg_last_wal_receive_lsn()::text")
        monkeypatch.setenv("FENCE_COMMAND", f"{sys.executable} -c 'print(\"end_of_log {received}\")'")
        result = run(instance, tick(instance))
        assert result.success
    assert assisted.query("standby", "SELECT cluster_epoch()") == [(2,)]
