"""Assisted failover as it runs: Dagster's own daemon sees the loss and promotes, also when it is killed itself."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest

from depot_ops.local.stack import PROJECT_ROOT
from depot_ops.replicas.failover import under_way
from depot_ops.replicas.rejoin import rejoin
from depot_ops.replicas.server import wait_until
from depot_ops.reports.failovers import newest_document
from tests.depot_ops.replicas.test_assisted import set_environment
from tests.depot_ops.replicas.test_failover import kill_9, streams

pytestmark = pytest.mark.skipif("TORTURE_SECONDS" not in os.environ, reason="Dagster's daemon: make torture asks")
READY_SECONDS = 90
# A run whose process died is given up after three minutes, and Dagster looks at its runs twice a minute.
DEAD_RUN_SECONDS = 300
KILLS = 3


class Dagster:
    """Its daemon, with all that it starts in one group."""

    def __init__(self, home: Path, storage: str) -> None:
        self.home, self.storage = home, storage
        home.mkdir()
        shutil.copy(PROJECT_ROOT / "dagster_home" / "dagster.yaml", home)

    @contextmanager
    def running(self) -> Iterator[None]:
        command = [sys.executable, "-m", "dagster._daemon", "run", "-w", str(PROJECT_ROOT / "workspace.yaml")]
        looked = self.looks()
        with (self.home / "daemon.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                env={**os.environ, "DAGSTER_HOME": str(self.home)},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            wait_until(lambda: self.looks() > looked + 1, READY_SECONDS, f"it does not look: {self.home}/daemon.log")
            yield
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def looks(self) -> int:
        return int(self._asked("SELECT count(*) FROM job_ticks WHERE tick_body LIKE '%primary_health%'") or 0)

    def last_run(self) -> str | None:
        """How the newest one stands."""
        return self._asked("SELECT status FROM runs WHERE pipeline_name = 'promote_replica' ORDER BY id DESC LIMIT 1")

    def _asked(self, query: str) -> str | None:
        with psycopg.connect(self.storage, autocommit=True) as connection:
            try:
                row = connection.execute(query).fetchone()
            except psycopg.errors.UndefinedTable:  # it makes them when it starts
                return None
        return str(row[0]) if row else None


@pytest.fixture
def dagster(replicated, storage_url, tmp_path, monkeypatch):
    set_environment(replicated, storage_url, tmp_path, monkeypatch)
    return Dagster(tmp_path / "dagster", storage_url.replace("postgresql+psycopg2://", "postgresql://"))


def replaced(replication, dagster: Dagster, name: str, seconds: float) -> None:
    """`name` takes writes and the failover has ended."""

    def is_over() -> bool:
        promoted = replication.query(name, "SELECT pg_is_in_recovery()") == [(False,)]
        return promoted and under_way(replication.place) is None and dagster.last_run() == "SUCCESS"

    wait_until(is_over, seconds, f"the failover does not end: {dagster.home}/daemon.log")


def test_the_daemon_replaces_a_lost_primary_and_writers_go_on(replicated, dagster, tmp_path):
    with dagster.running():
        writer = replicated.writer()
        wait_until(lambda: writer.acknowledged, 20, "nobody writes")
        kill_9(replicated, "primary")
        killed = time.monotonic()
        replaced(replicated, dagster, "standby", READY_SECONDS)
        wait_until(lambda: writer.acknowledged[-1][1] > killed, 20, "nobody writes any more")
        acknowledged = writer.stop()
    there = {number for (number,) in replicated.query("standby", "SELECT number FROM written")}
    # Asynchronous: what the standby had not received may be lost, and nothing in the middle.
    missing = sorted(acknowledged - there)
    before = sorted(number for number, moment in writer.acknowledged if moment < killed)
    assert missing == before[len(before) - len(missing) :]
    assert "standby is the primary" in newest_document(tmp_path / "backups").read_text()


def test_a_daemon_that_is_killed_at_any_moment_promotes_once(replicated, dagster):
    moments = random.Random(int(os.environ.get("SEED", "1")))
    primary, standby = "primary", "standby"
    for number in range(KILLS):
        with dagster.running():
            kill_9(replicated, primary)
            time.sleep(moments.uniform(0, 12))  # into the watch, the run's start or any of its steps
        with dagster.running():
            replaced(replicated, dagster, standby, DEAD_RUN_SECONDS)
        assert replicated.query(standby, "SELECT max(epoch) FROM cluster_epochs") == [(number + 2,)]
        rejoin(replicated.place, primary)
        wait_until(lambda name=primary: streams(replicated, name), 20, f"{primary} does not stream")
        primary, standby = standby, primary
