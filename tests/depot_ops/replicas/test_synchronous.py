"""What "acknowledged" means in each mode, and that nobody who may lack it is promoted."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from depot_ops.evidence import Status
from depot_ops.replicas.create import create, rebuild, remove
from depot_ops.replicas.failover import promote
from depot_ops.replicas.nodes import Node, Nodes, ReplicaError
from depot_ops.replicas.promotion import Refused, switchover
from depot_ops.replicas.rejoin import rejoin
from depot_ops.replicas.server import ShutdownMode, wait_until
from depot_ops.replicas.synchronous import (
    Commit,
    Degraded,
    Policy,
    Seen,
    Synchronous,
    _save,
    check_synchronous,
    judged,
    objections,
    recorded,
    switch,
    tend,
)


def be(replicated, policy: Policy, commit: Commit = Commit.REMOTE_APPLY, after: float = 0.0) -> Synchronous:
    return switch(replicated.place.nodes, replicated.place.url, policy, commit, after)


def look(replicated) -> Synchronous:
    """As the watcher does."""
    return tend(replicated.place.nodes, replicated.place.url)


def waited_for(replicated, name: str) -> str:
    ((names,),) = replicated.query(name, "SHOW synchronous_standby_names")
    return names


def write(replicated, name: str, number: int) -> list[str]:
    """Returns what the server warned of."""
    warned: list[str] = []
    with psycopg.connect(replicated.conninfo(name), autocommit=True) as connection:
        connection.add_notice_handler(lambda notice: warned.append(notice.source_function))
        connection.execute("INSERT INTO written VALUES (%s)", (number,))
    return warned


class Waiting(threading.Event):
    """Set when a write is acknowledged."""

    warned: list[str] | None = None


@contextmanager
def writing(replicated, name: str, number: int) -> Iterator[Waiting]:
    """A write that waits meanwhile; the event is set when it is acknowledged."""
    done = Waiting()

    def run() -> None:
        done.warned = write(replicated, name, number)
        done.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    wait_until(
        lambda: replicated.query(name, "SELECT true FROM pg_stat_activity WHERE wait_event = 'SyncRep'") == [(True,)],
        10,
        "it does not wait",
    )
    yield done
    thread.join(20)
    assert done.is_set()


def test_stop_waits_and_refuses_who_was_not_in_sync(replicated):
    assert be(replicated, Policy.STOP).members == ("standby",)
    with pytest.raises(ReplicaError, match="every write would wait for ever"):
        remove(replicated.place, "standby")
    assert waited_for(replicated, "primary") == 'ANY 1 ("standby")'
    write(replicated, "primary", 1)
    assert replicated.query("standby", "SELECT number FROM written") == [(1,)]  # remote_apply: it can be read at once

    # A wait that is cancelled ends with success; only the warning tells.
    replicated.server("standby").stop()
    with writing(replicated, "primary", 2) as cancelled:
        replicated.query("primary", "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
    assert cancelled.warned == ["SyncRepWaitForLSN"]
    assert look(replicated).degraded is None
    assert check_synchronous(replicated.place.nodes, replicated.place.url).status is Status.UNHEALTHY
    with writing(replicated, "primary", 3) as acknowledged:
        assert not acknowledged.wait(0.5)
        # Operations on the replication itself do not wait.
        rebuild(replicated.place, "standby")
    look(replicated)
    assert check_synchronous(replicated.place.nodes, replicated.place.url).status is Status.HEALTHY

    # The record is as it was, and the primary was told otherwise.
    replicated.query("primary", "ALTER SYSTEM RESET synchronous_standby_names")
    replicated.query("primary", "SELECT pg_reload_conf()")
    wait_until(lambda: waited_for(replicated, "primary") == "", 10, "it waits on")
    found = check_synchronous(replicated.place.nodes, replicated.place.url)
    assert (found.status, "waits for nobody" in found.detail) == (Status.UNHEALTHY, True)
    look(replicated)

    # A second one, of which one is enough; the first to be lost is given up.
    create(replicated.place, "second")
    assert recorded(replicated.place.nodes).members == ("second", "standby")
    replicated.server("second").stop()
    write(replicated, "primary", 4)
    look(replicated)
    assert recorded(replicated.place.nodes).members == ("standby",)
    remove(replicated.place, "second")

    replicated.server("primary").stop(ShutdownMode.IMMEDIATE)
    record = recorded(replicated.place.nodes)
    _save(replicated.place.nodes, record.with_(members=("other",)))
    with pytest.raises(Refused, match="standby was not in sync; in sync was: other"):
        promote(replicated.place, "standby")
    _save(replicated.place.nodes, record)
    assert promote(replicated.place, "standby").lost_bytes == 0
    # Alone: it waits for whoever comes back.
    assert waited_for(replicated, "standby") == 'ANY 1 ("primary")'
    with writing(replicated, "standby", 5) as acknowledged:
        assert not acknowledged.wait(0.3)
        rejoin(replicated.place, "primary")
    assert recorded(replicated.place.nodes).members == ("primary",)


def test_degrade_goes_on_alone_with_an_alarm_and_comes_back(replicated):
    be(replicated, Policy.DEGRADE, Commit.ON, after=0.5)
    ((receiver,),) = replicated.query("standby", "SELECT pid FROM pg_stat_wal_receiver")
    os.kill(receiver, signal.SIGSTOP)  # to the primary it looks well for a minute
    try:
        with writing(replicated, "primary", 1):
            assert look(replicated).degraded is None
            time.sleep(0.5)
            degraded = look(replicated).degraded
        assert degraded is not None
        found = check_synchronous(replicated.place.nodes, replicated.place.url)
        assert found.status is Status.UNHEALTHY
        assert degraded.from_lsn in found.detail
        assert waited_for(replicated, "primary") == ""
        write(replicated, "primary", 2)
    finally:
        os.kill(receiver, signal.SIGCONT)
    replicated.server("primary").stop(ShutdownMode.IMMEDIATE)
    with pytest.raises(Refused, match=f"nobody is in sync since .* from {degraded.from_lsn} on"):
        promote(replicated.place, "standby")
    replicated.server("primary").may_be_primary()
    replicated.server("primary").start()
    wait_until(lambda: look(replicated).members == ("standby",), 20, "it does not come back")
    assert waited_for(replicated, "primary") == 'ANY 1 ("standby")'

    there = switchover(replicated.place, "standby")
    assert there.rejoin_failed is None
    assert recorded(replicated.place.nodes).members == ("primary",)
    assert waited_for(replicated, "standby") == 'ANY 1 ("primary")'

    replicated.server("standby").stop(ShutdownMode.IMMEDIATE)
    promote(replicated.place, "primary")
    write(replicated, "primary", 3)  # it does not wait for who is gone
    assert "promoted alone" in check_synchronous(replicated.place.nodes, replicated.place.url).detail
    rejoin(replicated.place, "standby")
    assert check_synchronous(replicated.place.nodes, replicated.place.url).status is Status.HEALTHY
    be(replicated, Policy.OFF)
    replicated.server("standby").stop()
    write(replicated, "primary", 4)


DEGRADED = Degraded(since="2026-01-01T00:00:00Z", from_lsn="0/5", reason="no standby confirms")


@pytest.mark.parametrize(
    ("record", "objection"),
    [
        (Synchronous(), None),
        (Synchronous(policy=Policy.STOP, members=("a",)), None),
        (Synchronous(policy=Policy.STOP, members=("b",)), "a was not in sync; in sync was: b"),
        (Synchronous(policy=Policy.STOP), "in sync was: none"),
        (Synchronous(policy=Policy.DEGRADE, degraded=DEGRADED), "from 0/5 on may be missing on a"),
    ],
    ids=["asynchronous", "member", "not-a-member", "nobody-yet", "degraded"],
)
def test_who_may_be_promoted(tmp_path, record, objection):
    nodes = Nodes(tmp_path)
    _save(nodes, record)
    found = objections(nodes, Node(name="a", data=tmp_path, port=1))
    assert found == [] if objection is None else objection in found[0]


def test_a_record_that_cannot_be_read_promotes_nobody(tmp_path):
    nodes = Nodes(tmp_path)
    (tmp_path / ".synchronous").write_text("{")
    with pytest.raises(ReplicaError, match="no record of the synchronous mode"):
        objections(nodes, Node(name="a", data=tmp_path, port=1))
    assert check_synchronous(nodes, "postgresql://nobody@127.0.0.1:1/postgres").status is Status.UNKNOWN


IN_SYNC = Synchronous(policy=Policy.STOP, members=("a",), tended_at=datetime(9999, 1, 1, tzinfo=UTC))
WELL = Seen(leader="p", waits_for=("a",), confirming=("a",))


@pytest.mark.parametrize(
    ("record", "seen", "status"),
    [
        (Synchronous(), None, Status.HEALTHY),
        (IN_SYNC, WELL, Status.HEALTHY),
        (IN_SYNC, replace(WELL, waits_for=()), Status.UNHEALTHY),
        (IN_SYNC, replace(WELL, waits_for=("a", "b")), Status.UNHEALTHY),
        (IN_SYNC, replace(WELL, confirming=()), Status.UNHEALTHY),
        (IN_SYNC, replace(WELL, leader="a"), Status.UNHEALTHY),
        (IN_SYNC.with_(tended_at=datetime.now(UTC) - timedelta(minutes=2)), WELL, Status.UNKNOWN),
        (IN_SYNC.with_(tended_at=None), WELL, Status.UNKNOWN),
        (IN_SYNC.with_(members=()), WELL, Status.UNHEALTHY),
        (IN_SYNC.with_(lost_since=datetime.now(UTC)), WELL, Status.UNHEALTHY),
        (IN_SYNC.with_(members=(), degraded=DEGRADED), WELL, Status.UNHEALTHY),
    ],
)
def test_what_is_an_alarm(record, seen, status):
    assert judged(record, seen)[0] is status
