"""After the primary is lost: every gate refuses what it is for, and what was the primary comes back as a standby."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import psycopg
import pytest

from depot_ops.replicas import rejoin as rejoining
from depot_ops.replicas.create import create
from depot_ops.replicas.failover import promote
from depot_ops.replicas.loss import Answer, is_standby
from depot_ops.replicas.nodes import ReplicaError
from depot_ops.replicas.promotion import Refused
from depot_ops.replicas.rejoin import Way, rejoin
from depot_ops.replicas.server import STOP_TIMEOUT_SECONDS, Server, ShutdownMode, wait_until
from depot_ops.reports.failovers import newest_document


def kill_9(replicated, name: str) -> None:
    server = replicated.server(name)
    os.kill(int((server.data / "postmaster.pid").read_text().splitlines()[0]), signal.SIGKILL)
    wait_until(lambda: not server.is_running(), 10, "it survives kill -9")


def streams(replicated, name: str) -> bool:
    return replicated.query(name, "SELECT status FROM pg_stat_wal_receiver") == [("streaming",)]


def recover_and_die(server: Server) -> None:
    server.may_be_primary()
    raise KeyboardInterrupt


def test_a_primary_that_was_killed(replicated, monkeypatch):
    writer = replicated.writer()
    wait_until(lambda: len(writer.acknowledged) > 50, 20, "nobody writes")
    kill_9(replicated, "primary")
    report = promote(replicated.place, "standby")
    after = len(writer.acknowledged)
    wait_until(lambda: len(writer.acknowledged) > after, 10, "nobody writes on the new primary")
    acknowledged = writer.stop()
    kept = {number for (number,) in replicated.query("standby", "SELECT number FROM written")}
    assert report.fenced == ("primary",)
    assert (report.epoch, report.timeline) == (2, 2)
    if report.lost_bytes == 0:
        assert acknowledged <= kept

    with pytest.raises(ReplicaError, match="takes writes already"):
        promote(replicated.place, "standby")
    assert replicated.query("standby", "SELECT cluster_epoch()") == [(2,)]

    replicated.server("primary").start()  # by hand: it does not know
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        replicated.query("primary", "INSERT INTO written VALUES (-1)")

    assert rejoin(replicated.place, "primary").way in (Way.STRAIGHT, Way.REWIND)
    assert streams(replicated, "primary")
    assert {number for (number,) in replicated.query("primary", "SELECT number FROM written")} == kept

    # A rejoin is killed while the old primary recovers alone, without the signal: nobody may start it.
    replicated.server("primary").stop(ShutdownMode.IMMEDIATE)
    monkeypatch.setattr(rejoining, "_recover_alone", recover_and_die)
    with pytest.raises(KeyboardInterrupt):
        rejoin(replicated.place, "primary")
    assert replicated.place.nodes.is_half_rewound("primary")
    assert not is_standby(replicated.place, replicated.node("primary"), Answer.SILENT)
    assert rejoin(replicated.place, "primary").way is Way.REBUILD
    assert streams(replicated, "primary")
    assert not replicated.place.nodes.is_half_rewound("primary")


def test_a_diverged_primary_is_bounded_refused_and_rewound(replicated):
    """It committed what its standby never got."""
    password = replicated.place.nodes.passfile(replicated.node("standby"))
    kept = password.read_text()
    password.write_text("")
    replicated.query("primary", "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_replication")
    replicated.query("primary", "CREATE TABLE only_here AS SELECT repeat('x', 1000) FROM generate_series(1, 3000)")
    kill_9(replicated, "primary")
    with pytest.raises(Refused, match=r"bytes of the primary's log would be lost"):
        promote(replicated.place, "standby")
    with pytest.raises(Refused, match="with a reason"):
        promote(replicated.place, "standby", accept_data_loss=True)
    report = promote(replicated.place, "standby", accept_data_loss=True, reason="the machine burnt down")
    assert report.lost_bytes > 1 << 20
    assert replicated.query("standby", "SELECT reason FROM cluster_epochs WHERE epoch = 2") == [
        ("the machine burnt down",)
    ]
    password.write_text(kept)
    assert rejoin(replicated.place, "primary").way is Way.REWIND
    assert replicated.query("primary", "SELECT to_regclass('only_here')") == [(None,)]
    assert streams(replicated, "primary")


def test_a_primary_that_works_is_left_alone_and_one_that_hangs_is_fenced(replicated, monkeypatch):
    """When it wakes up, it must not be there any more."""
    monkeypatch.setitem(STOP_TIMEOUT_SECONDS, ShutdownMode.IMMEDIATE, 1)
    with pytest.raises(Refused, match="switchover"):
        promote(replicated.place, "standby", accept_data_loss=True, reason="impatience")
    replicated.query("primary", "INSERT INTO written VALUES (1)")
    pid = int((replicated.primary.data / "postmaster.pid").read_text().splitlines()[0])
    os.kill(pid, signal.SIGSTOP)
    report = promote(replicated.place, "standby")
    assert report.fenced == ("primary",)
    assert not replicated.server("primary").is_running()
    assert rejoin(replicated.place, "primary").name == "primary"


def test_a_standby_that_has_less_than_another_is_not_chosen(replicated):
    create(replicated.place, "second")
    replicated.server("second").stop()
    replicated.query("primary", "INSERT INTO written SELECT generate_series(1, 1000)")
    ((written,),) = replicated.query("primary", "SELECT pg_current_wal_lsn()")
    wait_until(
        lambda: replicated.query("standby", "SELECT pg_last_wal_replay_lsn() >= %s", written) == [(True,)], 10, "behind"
    )
    password = replicated.place.nodes.passfile(replicated.node("second"))
    kept = password.read_text()
    password.write_text("")
    replicated.server("second").start()
    kill_9(replicated, "primary")
    with pytest.raises(Refused, match=r"standby has .* bytes more"):
        promote(replicated.place, "second")
    password.write_text(kept)
    promote(replicated.place, "standby")
    wait_until(lambda: streams(replicated, "second"), 20, "the other standby does not follow the new primary")


def test_a_directory_with_foreign_history_is_left_alone(replicated, seed):
    kill_9(replicated, "primary")
    shutil.rmtree(replicated.primary.data)
    binaries, account = replicated.place.binaries, replicated.place.account
    subprocess.run(
        [binaries.path("initdb"), "-D", replicated.primary.data, "-U", "postgres", "--no-sync"],
        check=True,
        cwd="/",
        capture_output=True,
        **account.process_owner(),
    )
    with pytest.raises(Refused, match="another cluster"):
        promote(replicated.place, "standby")
    promote(replicated.place, "standby", accept_data_loss=True, reason="the disk was replaced")
    with pytest.raises(ReplicaError, match="not its old self"):
        rejoin(replicated.place, "primary")


def test_a_sleeping_summarizer_does_not_hold_up_the_promotion(replication):
    """With an archive and summaries, as deployed: a promotion waits for the summarizer, which sleeps ever longer.

    Without new log it looks after 0.2 s, and then after twice as long each time: at 3.0 s, and at 6.2 s.
    """
    spool = replication.primary.data.parent / "spool"
    spool.mkdir()
    replication.place.account.own(spool)
    settings = {
        "archive_mode": "on",
        "archive_library": "basic_archive",
        "basic_archive.archive_directory": spool,
        "summarize_wal": "on",
    }
    for name, value in settings.items():
        replication.query("primary", f"ALTER SYSTEM SET {name} = '{value}'")
    replication.server("primary").stop()
    replication.server("primary").start()
    create(replication.place, "standby")
    replication.follow()
    kill_9(replication, "primary")
    time.sleep(3.5)
    assert promote(replication.place, "standby").write_gap_seconds < 1.5


def test_the_check_promotes_when_it_was_told_to_and_the_primary_is_lost(replicated, tmp_path):
    environment = {
        **os.environ,
        "BACKUP_DIR": str(tmp_path),
        "DEPOT_REPLICATION_URL": replicated.place.url,
        "REPLICA_DIR": str(replicated.place.nodes.directory),
    }
    command = [sys.executable, "-m", "depot_ops", "replica", "check", replicated.conninfo("standby", "postgres")]
    command.append("--promote-on-failure")

    # Its stream is broken, but the primary works.
    passfile = replicated.place.nodes.passfile(replicated.node("standby"))
    kept = passfile.read_text()
    passfile.write_text("")
    replicated.query("primary", "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_replication")
    refused = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert refused.returncode == 4
    assert "takes writes" in refused.stderr
    passfile.write_text(kept)
    wait_until(lambda: streams(replicated, "standby"), 20, "it does not stream again")

    kill_9(replicated, "primary")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    health, promotion = map(json.loads, done.stdout.splitlines())
    assert (health["status"], promotion["promoted"], promotion["epoch"]) == ("disconnected", "standby", 2)
    page = newest_document(tmp_path)
    assert str(page) in done.stderr
    assert "**standby is the primary** on timeline 2, cluster epoch 2" in page.read_text()
    replicated.query("standby", "INSERT INTO written VALUES (1)")
