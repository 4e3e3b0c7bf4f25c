"""Receiving the log as it is written: pg_receivewal with a slot of its own, and its finished segments handed over."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from depot_ops.exclusive import exclusively
from depot_ops.postgres.binaries import Binaries
from depot_ops.postgres.client_tools import ToolFailed, client_environment, running
from depot_ops.postgres.wal.stream import PARTIAL_SUFFIX
from depot_ops.replicas.streaming import bound_slots, connected, drop_slot

LOCK_NAME = ".receive.lock"
ASIDE_SUFFIX = ".aside"
LOST = "lost"


class ReceiveError(Exception):
    """The log is not received any more; the message says why."""


def receive(
    url: str,
    directory: Path,
    binaries: Binaries,
    slot: str,
    stop: threading.Event,
    interval_seconds: float,
    hand_over: Callable[[], None],
) -> None:
    """Receive the log into `directory` until `stop`, and call `hand_over` each interval. Raises ReceiveError."""
    command = [
        str(binaries.path("pg_receivewal")),
        f"--directory={directory}",
        f"--slot={slot}",
        "--synchronous",
        "--no-loop",  # whoever supervises this starts it again, and sees that it had to
        "--no-password",
    ]
    try:
        with _sole_receiver(directory):
            _prepare(url, directory, slot)
            with running(command, client_environment(url)) as process:
                while process.poll() is None and not stop.wait(interval_seconds):
                    hand_over()
                process.send_signal(signal.SIGINT)
            hand_over()
    except (ToolFailed, psycopg.Error, OSError) as error:
        raise ReceiveError(f"the log is not received into {directory}: {str(error).strip()}") from error


@contextmanager
def _sole_receiver(directory: Path) -> Iterator[None]:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    refusal = ReceiveError(f"another receiver writes into {directory}: leave it to that one")
    with exclusively(directory / LOCK_NAME, refusal):
        yield


def _prepare(url: str, directory: Path, slot: str) -> None:
    """See to a slot from which the stream goes on, and to nobody else using it."""
    with connected(url) as primary:
        bound_slots(primary)
        row = primary.execute(
            "SELECT wal_status, active_pid FROM pg_replication_slots WHERE slot_name = %s", (slot,)
        ).fetchone()
        if row and row[0] != LOST:
            if row[1] is not None:  # the pg_receivewal of a run that was killed
                primary.execute("SELECT pg_terminate_backend(%s, 5000)", (row[1],))
            return
        if row:
            drop_slot(primary, slot)
        # A new slot begins now: where the directory ends, the primary's log may have gone. The archive has that part.
        for partial in directory.glob("*" + PARTIAL_SUFFIX):
            partial.rename(partial.with_name(partial.name + ASIDE_SUFFIX))
        primary.execute("SELECT pg_create_physical_replication_slot(%s, true)", (slot,))
