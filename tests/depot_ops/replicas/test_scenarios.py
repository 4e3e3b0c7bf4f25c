"""Scenarios of docs/replica-scenarios.md that have no better place: two standbys, and one loss after another."""

import os

import pytest

from depot_ops.replicas.create import create
from depot_ops.replicas.failover import promote
from depot_ops.replicas.promotion import Refused
from depot_ops.replicas.rejoin import rejoin
from depot_ops.replicas.server import ShutdownMode, wait_until
from tests.depot_ops.replicas.test_failover import kill_9, streams

pytestmark = pytest.mark.skipif("TORTURE_SECONDS" not in os.environ, reason="three servers each: make torture asks")
STANDBYS = ("standby", "second")


def test_both_standbys_behind_is_a_loss_that_is_told(replicated):
    """None of them may be promoted without accepting it; the old primary comes back instead."""
    create(replicated.place, "second")
    kept = {}
    for name in STANDBYS:
        passfile = replicated.place.nodes.passfile(replicated.node(name))
        kept[passfile] = passfile.read_text()
        passfile.write_text("")
    replicated.query("primary", "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_replication")
    replicated.query("primary", "CREATE TABLE only_here AS SELECT repeat('x', 1000) FROM generate_series(1, 3000)")
    kill_9(replicated, "primary")
    for name in STANDBYS:
        with pytest.raises(Refused, match=r"bytes of the primary's log would be lost"):
            promote(replicated.place, name)
    for passfile, password in kept.items():
        passfile.write_text(password)
    server = replicated.server("primary")
    server.may_be_primary()
    server.start()
    for name in STANDBYS:
        wait_until(lambda name=name: streams(replicated, name), 20, f"{name} does not stream")


def test_the_new_primary_is_lost_as_well(replicated):
    create(replicated.place, "second")
    replicated.follow()  # the address names the new one, too
    replicated.query("primary", "INSERT INTO written VALUES (1)")
    kill_9(replicated, "primary")
    assert promote(replicated.place, "standby").epoch == 2
    wait_until(lambda: streams(replicated, "second"), 20, "the other standby does not follow")
    replicated.query("standby", "INSERT INTO written VALUES (2)")
    ((written,),) = replicated.query("standby", "SELECT pg_current_wal_lsn()")
    wait_until(
        lambda: replicated.query("second", "SELECT pg_last_wal_replay_lsn() >= %s", written) == [(True,)], 10, "behind"
    )
    replicated.server("standby").stop(ShutdownMode.IMMEDIATE)
    done = promote(replicated.place, "second")
    assert (done.epoch, done.timeline) == (3, 3)
    assert replicated.query("second", "SELECT number FROM written ORDER BY 1") == [(1,), (2,)]
    for name in ("standby", "primary"):
        rejoin(replicated.place, name)
    assert replicated.query("primary", "SELECT number FROM written ORDER BY 1") == [(1,), (2,)]
