"""Reading the user's files, and noticing that one changes meanwhile."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Self

from depot_api.client.http import CHUNK_BYTES
from depot_api.client.problems import FileChanged, Interrupted, LocalFileError

STATE_DIRECTORY = ".depot"  # holds the workspace's records; never submitted, never written to by a sync


@dataclass(frozen=True, slots=True)
class FileStat:
    """What tells, without reading it, that a file is still the same."""

    size_bytes: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, result: os.stat_result) -> Self:
        return cls(result.st_size, result.st_mtime_ns, result.st_ino)


def current_stat(path: Path) -> FileStat | None:
    """The state of what lies at a path, not following a symbolic link; None when nothing is there."""
    try:
        return FileStat.of(path.lstat())
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_chunks(path: Path, expected: FileStat, stop: Event) -> Iterator[memoryview]:
    """The file's bytes in pieces that are valid until the next one.

    Raises FileChanged when the file is not, or does not stay, as expected; Interrupted when `stop` is set.
    """
    buffer = memoryview(bytearray(min(CHUNK_BYTES, max(1, expected.size_bytes))))
    left = expected.size_bytes
    try:
        with path.open("rb", buffering=0) as file:
            _must_be(path, expected, os.fstat(file.fileno()))
            while left:
                if stop.is_set():
                    raise Interrupted("Stopped.")
                count = file.readinto(buffer[:left])
                if not count:
                    raise _changed(path)
                left -= count
                yield buffer[:count]
            _must_be(path, expected, os.fstat(file.fileno()))
    except FileNotFoundError as error:
        raise _changed(path) from error
    except OSError as error:
        raise unreadable(path, error) from error


def hash_file(path: Path, expected: FileStat, stop: Event) -> str:
    """SHA-256 of a file. Raises as `read_chunks`."""
    hasher = hashlib.sha256()
    for chunk in read_chunks(path, expected, stop):
        hasher.update(chunk)
    return hasher.hexdigest()


def unreadable(path: Path, error: OSError) -> LocalFileError:
    return LocalFileError(f"{path} cannot be read: {error.strerror}. Make it readable or move it away, then go on.")


def unwritable(path: Path, error: OSError) -> LocalFileError:
    return LocalFileError(
        f"{path} cannot be written: {error.strerror}. Put that right and run the same command again: "
        "it goes on where it stopped."
    )


def _must_be(path: Path, expected: FileStat, seen: os.stat_result) -> None:
    if FileStat.of(seen) != expected:
        raise _changed(path)


def _changed(path: Path) -> FileChanged:
    return FileChanged(
        f"{path} changed while it was being read. Let the program that writes it finish, then run the command again."
    )
