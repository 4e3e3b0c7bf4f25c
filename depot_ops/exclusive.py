"""One at a time: a lock file that its holder keeps open, so that the lock goes with the process, however that ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def exclusively(path: Path, refusal: Exception, mode: int = 0o600) -> Iterator[int]:
    """Hold the lock file at `path`, made where it is missing; a child that inherits the descriptor holds it too.

    Raises `refusal` at once where another holds it, and OSError.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT, mode)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise refusal from None
        yield lock
    finally:
        os.close(lock)
