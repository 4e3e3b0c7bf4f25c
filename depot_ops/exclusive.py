"""One at a time: a lock file that its holder keeps open, so that the lock goes with the process, however that ends."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

POLL_SECONDS = 0.05


@contextmanager
def exclusively(path: Path, refusal: Exception, mode: int = 0o600, wait_seconds: float = 0.0) -> Iterator[int]:
    """Hold the lock file at `path`, made where it is missing; a child that inherits the descriptor holds it too.

    Raises `refusal` where another holds it still after `wait_seconds`, and OSError.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT, mode)
    deadline = time.monotonic() + wait_seconds
    try:
        while not _taken(lock):
            if time.monotonic() >= deadline:
                raise refusal
            time.sleep(POLL_SECONDS)
        yield lock
    finally:
        os.close(lock)


def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
