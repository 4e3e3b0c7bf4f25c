"""What every place does, whatever it is made of."""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from depot_ops.durable import fsync, partial_of

CHUNK_BYTES = 1 << 20


class PlaceError(Exception):
    """A place could not be asked, or did not do what it was told; the message says what was seen and what to do."""


class PlaceMissing(PlaceError):
    """There is proof that nothing lies under this key."""


class PlaceConflict(PlaceError):
    """Other content lies under this key already. It is left as it is."""


class PlaceDamaged(PlaceError):
    """Content has not the SHA-256 that it was written with."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What lies under a key."""

    key: str
    size_bytes: int


class Place(ABC):
    """Keys are relative paths with `/`. All methods may be called by several threads, and raise PlaceError."""

    @abstractmethod
    def __str__(self) -> str:
        """The URL, without secrets."""

    @abstractmethod
    def put(self, key: str, path: Path, sha256: str, *, is_free: bool = False) -> None:
        """Copy a file there. The same content there already is fine; nothing is ever overwritten.

        `is_free`: a listing has just shown that nothing lies there, so that need not be looked at first.
        Raises PlaceConflict, and PlaceDamaged when the file itself has not this SHA-256 (then nothing is written).
        """

    @abstractmethod
    def replace(self, key: str, path: Path, sha256: str) -> None:
        """Copy a file there, in place of whatever there is. Raises PlaceDamaged as `put` does."""

    @abstractmethod
    def size_bytes(self, key: str) -> int | None:
        """Of what lies there; None when nothing does."""

    @abstractmethod
    def get(self, key: str, path: Path) -> str:
        """Copy to a file, which appears whole and durable or not at all. Returns the SHA-256 of what arrived.

        Raises PlaceMissing, and PlaceDamaged where the place itself knows what it should be.
        """

    @abstractmethod
    def sha256(self, key: str) -> str:
        """Of the content as it can be read now: all of it is read. Raises PlaceMissing."""

    @abstractmethod
    def list(self, prefix: str) -> Iterator[Stored]:
        """In the order of the keys' bytes, a page at a time."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """It is no error when there is nothing."""

    @abstractmethod
    def remove_debris(self) -> None:
        """Remove what writers left that were killed long ago."""


def write_whole(path: Path, chunks: Iterable[bytes], sha256: str | None = None) -> str:
    """Write a file under a temporary name, make it durable, then name it. Returns its SHA-256.

    Raises PlaceDamaged when that is not the one it should be, before it has a name; and OSError.
    """
    partial = partial_of(path)
    digest = hashlib.sha256()
    try:
        with partial.open("xb") as file:
            for chunk in chunks:
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        if sha256 not in (None, digest.hexdigest()):
            raise PlaceDamaged(f"what was read for {path.name} has the SHA-256 {digest.hexdigest()}, not {sha256}")
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)
    fsync(path.parent)
    return digest.hexdigest()


def chunks_of(path: Path) -> Iterator[bytes]:
    """The content of a file."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
