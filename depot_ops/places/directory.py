"""A directory as a place: another disk, or a share that is mounted."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from depot_ops.durable import PARTIAL_PREFIX, fsync, make_directories, remove_debris
from depot_ops.places.place import (
    Place,
    PlaceConflict,
    PlaceError,
    PlaceMissing,
    Stored,
    chunks_of,
    write_whole,
)


class DirectoryPlace(Place):
    """Files as they are. The directory has to be there: one that is not mounted would look like an empty one."""

    def __init__(self, root: str) -> None:
        self._root = Path(root)
        if not self._root.is_dir():
            raise PlaceError(f"{self}: there is no such directory. Mount it, or make it, and try again")

    def __str__(self) -> str:
        return self._root.as_uri()

    def put(self, key: str, path: Path, sha256: str, *, is_free: bool = False) -> None:
        target = self._path(key)
        with self._asked(key):
            if target.exists():
                if self.sha256(key) != sha256:
                    raise PlaceConflict(f"{self} has other content under {key}, and it is left. Look at both")
                return
        self.replace(key, path, sha256)

    def replace(self, key: str, path: Path, sha256: str) -> None:
        target = self._path(key)
        with self._asked(key):
            make_directories(target.parent)
            write_whole(target, chunks_of(path), sha256)

    def size_bytes(self, key: str) -> int | None:
        try:
            with self._asked(key):
                return self._path(key).stat().st_size
        except PlaceMissing:
            return None

    def get(self, key: str, path: Path) -> str:
        with self._asked(key):
            return write_whole(path, chunks_of(self._path(key)))

    def sha256(self, key: str) -> str:
        with self._asked(key), self._path(key).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def list(self, prefix: str) -> Iterator[Stored]:
        with self._asked(prefix):
            self._root.stat()
            yield from self._walk(self._root, "", prefix)

    def _walk(self, directory: Path, above: str, prefix: str) -> Iterator[Stored]:
        with os.scandir(directory) as entries:
            # As object storage sorts keys: a directory's name goes on with a slash.
            found = sorted((f"{above}{e.name}/" if e.is_dir() else f"{above}{e.name}", e) for e in entries)
        for key, entry in found:
            if key.endswith("/"):
                if key.startswith(prefix) or prefix.startswith(key):
                    yield from self._walk(Path(entry.path), key, prefix)
            elif key.startswith(prefix) and not entry.name.startswith(PARTIAL_PREFIX):
                yield Stored(key, entry.stat().st_size)

    def delete(self, key: str) -> None:
        with self._asked(key):
            self._path(key).unlink(missing_ok=True)
            if self._path(key).parent.is_dir():
                fsync(self._path(key).parent)

    def remove_debris(self) -> None:
        with self._asked("what killed writers left"):
            remove_debris(self._root.rglob(f"{PARTIAL_PREFIX}*"))

    def _path(self, key: str) -> Path:
        path = self._root / key
        if ".." in path.parts or not path.is_relative_to(self._root):
            raise PlaceError(f"{key} is no key: it leads out of {self}")
        return path

    @contextmanager
    def _asked(self, key: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            if not self._root.is_dir():
                raise PlaceError(f"{self} is gone while it was used: is it mounted? ({error})") from error
            raise PlaceMissing(f"{self} has nothing under {key}") from error
        except OSError as error:
            raise PlaceError(f"{self} does not do what it should with {key}: {error}") from error
