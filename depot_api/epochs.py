"""The highest cluster epoch that anyone has seen, in a file that every worker and the operations layer share.

A server that was the primary before a promotion may come back and take writes. It cannot know of the promotion, so
what it says of itself proves nothing: the number beside the blob store does.
"""

import fcntl
import os
from dataclasses import dataclass, field
from pathlib import Path

FILE_NAME = "cluster-epoch"


@dataclass
class EpochFile:
    """Only ever rises. Reading costs one system call while nobody has changed it."""

    path: Path
    _read: int = field(default=0, init=False)
    _stamp: tuple[int, int] = field(default=(0, 0), init=False)

    def highest(self) -> int:
        """0 while no epoch is known. Raises OSError, and ValueError when it is no number."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return self._read
        stamp = (status.st_ino, status.st_mtime_ns)
        if stamp != self._stamp:
            self._read = max(self._read, int(self.path.read_text()))
            self._stamp = stamp
        return self._read

    def raise_to(self, epoch: int) -> None:
        """Remember `epoch` durably, unless a higher one is known."""
        if epoch <= self.highest():
            return
        lock = self.path.with_name(f".{self.path.name}.lock")
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if epoch > self.highest():
                self._replace(epoch)
        finally:
            os.close(descriptor)

    def _replace(self, epoch: int) -> None:
        partial = self.path.with_name(f".{self.path.name}.partial")
        with partial.open("w") as file:
            file.write(f"{epoch}\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.path)
        directory = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
