"""A primary that is lost costs no commit that was streamed; and damage to the stream is never restored from."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from depot_ops.evidence import Finding, Status
from depot_ops.postgres.recovery import restore
from depot_ops.postgres.recovery_plan import RestoreError
from depot_ops.postgres.wal.archive import WalArchive
from depot_ops.postgres.wal.stream import SLOT, check_stream

DEADLINE_SECONDS = 60


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.02)


@pytest.fixture
def stream(work_dir) -> Path:
    return work_dir / "stream"


@contextmanager
def receiver(primary, stream) -> Iterator[subprocess.Popen[bytes]]:
    environment = {
        **os.environ,
        "WAL_STREAM_DIR": str(stream),
        "WAL_ARCHIVE_DIR": str(primary.archive_root),
        "DEPOT_REPLICATION_URL": primary.url,
        "DEPOT_PG_BINDIR": str(primary.cluster.binaries.bindir),
    }
    command = [sys.executable, "-m", "depot_ops", "wal", "receive", "--interval-seconds", "0.1"]
    process = subprocess.Popen(command, env=environment)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def look(primary, archive: WalArchive, stream: Path, seconds: float = DEADLINE_SECONDS) -> Finding:
    return check_stream(primary.url, stream, archive, arrival_seconds=seconds)


def lose(primary) -> None:
    """The machine is gone: the server and all of its data, its spool with it."""
    server = primary.cluster.process
    os.kill(server.pid, signal.SIGKILL)
    server.wait()
    shutil.rmtree(primary.cluster.home)


def streams(primary) -> bool:
    return bool(primary.execute(f"SELECT active FROM pg_replication_slots WHERE slot_name = '{SLOT}' AND active"))


def recover(primary, work_dir: Path, stream: Path) -> str | None:
    """Restore in the place of the lost one, and start it."""
    cluster = primary.cluster
    what = (primary.backup_dir, primary.archive_root, cluster.binaries, cluster.account)
    report = restore(work_dir / "restored", *what, stream=stream)
    cluster.home.mkdir(mode=0o711)
    (work_dir / "restored").rename(cluster.data)
    cluster.initialize()  # the spool
    cluster.start()
    return report.streamed_until


def damaged_copy(stream: Path, copy: Path) -> tuple[Path, str]:
    """With a byte flipped in the middle of what was received last; and the name of that segment."""
    shutil.copytree(stream, copy)
    (partial,) = copy.glob("*.partial")
    content = bytearray(partial.read_bytes())
    content[len(content.rstrip(b"\0")) // 2] ^= 0xFF
    partial.write_bytes(content)
    return copy, partial.stem


def test_a_commit_that_no_archive_has_survives_the_loss_of_the_primary(primary, work_dir, stream):
    primary.back_up()
    archive = primary.archive
    with receiver(primary, stream) as process:
        wait_until(lambda: streams(primary))
        primary.insert(2)
        primary.execute("SELECT pg_switch_wal()")
        primary.insert(1)
        primary.archive_all()  # by both ways
        wait_until(lambda: [path.suffix for path in stream.glob("0*")] == [".partial"])  # the others were handed over
        primary.insert(3)
        healthy = look(primary, archive, stream)
        assert healthy.status is Status.HEALTHY, healthy.detail
        assert healthy.figures["lag_bytes"] == 0
        expected = primary.rows()
        lose(primary)
        assert process.wait(DEADLINE_SECONDS) == 1  # the stream ended: its supervisor is told
    damaged, name = damaged_copy(stream, work_dir / "damaged")
    with pytest.raises(RestoreError, match=name):
        recover(primary, work_dir, damaged)
    assert not (work_dir / "restored").exists()
    assert recover(primary, work_dir, stream) is not None
    assert primary.rows() == expected == [1, 2, 3, 4, 5, 6]


def test_a_receiver_that_hangs_or_is_killed_is_seen_and_goes_on(primary, stream):
    primary.back_up()
    primary.archive_all()
    archive = primary.archive
    assert look(primary, archive, stream).status is Status.UNHEALTHY  # no slot
    with receiver(primary, stream) as process:
        wait_until(lambda: streams(primary))
        assert look(primary, archive, stream).status is Status.HEALTHY
        with receiver(primary, stream) as second:
            assert second.wait(DEADLINE_SECONDS) == 1  # one directory, one receiver
        sent = primary.execute(f"SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{SLOT}'")[0][0]
        os.kill(process.pid, signal.SIGKILL)  # its pg_receivewal lives on, and is replaced
    with receiver(primary, stream):
        wait_until(
            lambda: streams(primary) and not primary.execute(f"SELECT 1 FROM pg_stat_activity WHERE pid = {sent}")
        )
        assert look(primary, archive, stream).status is Status.HEALTHY
        elsewhere = look(primary, archive, stream.parent)
        assert elsewhere.status is Status.UNHEALTHY
    stopped = look(primary, archive, stream, seconds=0.2)
    assert stopped.status is Status.UNHEALTHY
    assert stopped.figures["lag_bytes"] > 0


@pytest.mark.skipif("TORTURE_SECONDS" not in os.environ, reason="many kills: make torture asks")
def test_kill_9_of_the_receiver_at_random_moments_loses_nothing(primary, work_dir, stream):
    primary.back_up()
    with receiver(primary, stream):
        wait_until(lambda: streams(primary))
        primary.archive_all()  # what was written before there was a slot
    chance = random.Random(int(os.environ.get("SEED", "0")))
    for _ in range(10):
        with receiver(primary, stream) as process:
            deadline = time.monotonic() + chance.uniform(0.5, 4)
            while time.monotonic() < deadline:
                primary.insert()
                primary.execute("SELECT pg_switch_wal()")
            os.kill(process.pid, signal.SIGKILL)
    with receiver(primary, stream):
        wait_until(lambda: look(primary, primary.archive, stream).status is Status.HEALTHY)
        expected = primary.rows()
        wait_until(lambda: look(primary, primary.archive, stream).status is Status.HEALTHY)
        lose(primary)
    recover(primary, work_dir, stream)
    assert primary.rows() == expected


@pytest.mark.skipif("TORTURE_SECONDS" not in os.environ, reason="a minute of log: make torture asks")
def test_a_slot_that_lost_its_log_is_made_anew(primary, stream):
    primary.back_up()
    primary.archive_all()
    with receiver(primary, stream):
        wait_until(lambda: streams(primary) and [*stream.glob("*.partial")])
    primary.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
    primary.execute("ALTER SYSTEM SET min_wal_size = '32MB'")
    primary.execute("SELECT pg_reload_conf()")
    for _ in range(3):
        primary.insert()
        primary.archive_all()
        primary.execute("CHECKPOINT")
    lost = "SELECT 1 FROM pg_replication_slots WHERE wal_status = 'lost'"
    wait_until(lambda: primary.execute("CHECKPOINT") or primary.execute(lost))
    with receiver(primary, stream):
        wait_until(lambda: streams(primary))
        assert look(primary, primary.archive, stream).status is Status.HEALTHY
    assert len([*stream.glob("*.partial")]) == 1


def test_no_server_to_ask_is_unknown(work_dir):
    url = psycopg.conninfo.make_conninfo(host=str(work_dir), dbname="postgres")
    assert check_stream(url, work_dir, WalArchive(work_dir, 1)).status is Status.UNKNOWN
