"""A disk that still lists its files and does not read some of them any more."""

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def unreadable(monkeypatch) -> Callable[[Path], None]:
    """From now on this file is there with its size, and every read of it fails with EIO; what replaces it is read."""
    dead: dict[Path, int] = {}
    opened, read_bytes = Path.open, Path.read_bytes

    class Dead(io.FileIO):
        def read(self, *_):
            raise OSError(errno.EIO, os.strerror(errno.EIO), self.name)

        readinto = readall = read

    def is_dead(path: Path) -> bool:
        return path in dead and path.exists() and path.stat().st_ino == dead[path]

    monkeypatch.setattr(Path, "open", lambda path, *a, **k: Dead(path) if is_dead(path) else opened(path, *a, **k))
    monkeypatch.setattr(Path, "read_bytes", lambda path: Dead(path).read() if is_dead(path) else read_bytes(path))
    return lambda path: dead.update({path: path.stat().st_ino})
