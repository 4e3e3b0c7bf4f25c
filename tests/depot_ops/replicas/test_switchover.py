"""A planned change of the primary loses nothing, and whatever stops it leaves the old primary as it was."""

import os
import signal
import time

import psycopg
import pytest

from depot_api.epochs import EpochFile
from depot_ops.evidence import Status
from depot_ops.replicas import promotion
from depot_ops.replicas.failover import Terms, begin, forget
from depot_ops.replicas.loss import Patience, watch_primary
from depot_ops.replicas.nodes import ReplicaBusy, ReplicaError
from depot_ops.replicas.promotion import hand_over, switchover
from depot_ops.replicas.rejoin import Way
from depot_ops.replicas.single_primary import check_single_primary
from depot_ops.replicas.streaming import facts_of_primary


def test_there_and_back_under_load(replicated, tmp_path):
    epochs = EpochFile(tmp_path / "cluster-epoch")
    writer = replicated.writer()
    there = switchover(replicated.place, "standby", epochs)
    time.sleep(0.2)
    back = switchover(replicated.place, "primary", epochs)
    time.sleep(0.2)
    acknowledged = writer.stop()
    kept = {number for (number,) in replicated.query("primary", "SELECT number FROM written")}
    assert acknowledged <= kept
    assert len(acknowledged) > 50
    assert (there.epoch, there.timeline, back.epoch, back.timeline) == (2, 2, 3, 3)
    assert epochs.highest() == 3
    for report in (there, back):
        assert report.rejoin_failed is None
        assert report.rejoined.way is Way.STRAIGHT
        assert report.lost_bytes == 0
    assert writer.longest_gap() < 5
    assert replicated.query("standby", "SELECT pg_is_in_recovery(), (SELECT status FROM pg_stat_wal_receiver)") == [
        (True, "streaming")
    ]
    assert replicated.query("primary", "SELECT slot_name FROM pg_replication_slots") == [("depot_standby",)]
    assert replicated.query("standby", "SELECT slot_name FROM pg_replication_slots") == []
    reasons = replicated.query("standby", "SELECT epoch, node, reason FROM cluster_epochs ORDER BY 1")
    assert reasons[1:] == [(2, "standby", "switchover"), (3, "primary", "switchover")]


def test_a_standby_that_does_not_stream_is_refused_while_writes_go_on(replicated, monkeypatch):
    monkeypatch.setattr("depot_ops.replicas.promotion.CAUGHT_UP_SECONDS", 0.5)
    replicated.server("standby").stop()
    with pytest.raises(ReplicaError, match="does not stream"):
        switchover(replicated.place, "standby")
    replicated.query("primary", "INSERT INTO written VALUES (1)")
    assert not (replicated.primary.data / "standby.signal").exists()


def test_a_standby_that_misses_the_last_byte_is_not_promoted(replicated, monkeypatch):
    """Its receiver hangs from the moment when everything looked well."""
    monkeypatch.setattr("depot_ops.replicas.promotion.LAST_BYTE_SECONDS", 0.5)
    replicated.query("primary", "ALTER SYSTEM SET wal_sender_timeout = '500ms'")
    replicated.query("primary", "SELECT pg_reload_conf()")
    with psycopg.connect(replicated.place.url) as primary:
        facts = facts_of_primary(primary)
    ((receiver,),) = replicated.query("standby", "SELECT pid FROM pg_stat_wal_receiver")
    os.kill(receiver, signal.SIGSTOP)
    try:
        with pytest.raises(ReplicaError, match="did not get the last"):
            hand_over(replicated.place, replicated.primary, facts, replicated.node("standby"))
    finally:
        os.kill(receiver, signal.SIGCONT)
    replicated.query("primary", "INSERT INTO written VALUES (1)")
    assert replicated.query("standby", "SELECT pg_is_in_recovery()") == [(True,)]
    assert replicated.query("primary", "SELECT cluster_epoch()") == [(1,)]


def test_the_primary_is_no_target_and_two_at_once_are_one(replicated):
    with pytest.raises(ReplicaError, match="is the primary already"):
        switchover(replicated.place, "primary")
    with replicated.place.nodes.locked(), pytest.raises(ReplicaBusy):
        switchover(replicated.place, "standby")


def killed_in(step: str, replicated, target: str) -> None:
    """A switchover whose process is gone when it comes to this step."""
    child = os.fork()
    if child == 0:
        setattr(promotion, step, lambda *_: os._exit(9))
        try:
            switchover(replicated.place, target)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_one_that_was_killed_is_seen_and_taken_back_or_ended(replicated):
    place = replicated.place
    killed_in("received", replicated, "standby")  # the old primary is fenced, and the standby not asked yet
    found = check_single_primary(place)
    assert (found.status, "was interrupted" in found.detail) == (Status.UNHEALTHY, True)
    assert watch_primary(place, Patience(interval_seconds=0.1)).loss is not None
    assert switchover(place, "standby").rejoin_failed is None
    assert check_single_primary(place).status is Status.HEALTHY

    killed_in("_promote", replicated, "primary")  # it may have been told already
    replicated.server("standby").start()  # as a supervisor does: every node is a standby, and the target hears of one
    assert watch_primary(place, Patience(interval_seconds=0.1)).loss is not None
    failover = begin(place, Terms())
    assert (failover.target, failover.suspects) == ("primary", ("standby",))
    forget(place)
    with pytest.raises(ReplicaError, match="has not ended"):
        switchover(place, "standby")
    assert switchover(place, "primary").rejoin_failed is None
    assert check_single_primary(place).status is Status.HEALTHY
    replicated.query("primary", "INSERT INTO written VALUES (1)")
