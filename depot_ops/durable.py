"""Files that survive a crash: flushed with the directory that names them, and whole or not there at all.

Nothing heavy is imported here: a server that pushes segments by command starts an interpreter for each.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from time import time

PARTIAL_PREFIX = ".partial-"
# No writer takes this long for one file: whoever left it is dead.
DEBRIS_AGE_SECONDS = 3600.0
PRIVATE = 0o600


def fsync(path: Path) -> None:
    """Flush a file or a directory."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_directories(path: Path) -> None:
    """Make `path` so that it survives a crash."""
    missing = [directory for directory in (path, *path.parents) if not directory.exists()]
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    for directory in missing:
        fsync(directory.parent)


def partial_of(path: Path) -> Path:
    """A hidden name beside `path` that no other writer has."""
    return path.with_name(f"{PARTIAL_PREFIX}{path.name}-{os.urandom(6).hex()}")


def write_whole(path: Path, text: str, mode: int | None = None) -> None:
    """Write `text` so that whoever reads `path` sees all of it or what was there before. Raises OSError.

    `mode` is who may read it, at every moment; None is what the process makes files with.
    """
    partial = partial_of(path)
    try:
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else mode)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            if mode is not None:
                os.fchmod(handle, mode)
            file.write(text)
            file.flush()
            os.fsync(handle)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    fsync(path.parent)


def write_private(path: Path, text: str) -> None:
    """As `write_whole`, never readable by others, not even for a moment."""
    write_whole(path, text.removesuffix("\n") + "\n", PRIVATE)


def remove_debris(partials: Iterable[Path]) -> None:
    """Remove those of them that writers left who were killed long ago. Raises OSError."""
    oldest = time() - DEBRIS_AGE_SECONDS
    for partial in partials:
        try:
            if partial.stat().st_mtime < oldest:
                partial.unlink()
        except FileNotFoundError:
            continue  # its writer lives, and was faster
