"""Fetching contents, checking each against its hash, and putting it in place whole."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from io import FileIO
from pathlib import Path
from threading import Event
from typing import cast
from uuid import UUID

from isal import isal_zlib

from depot_api.blobstore.pack import EntryData, EntryEnd, EntryStart, PackError, PackReader
from depot_api.client.depot import FETCH_LIMIT, DepotClient
from depot_api.client.files import FileStat, unwritable
from depot_api.client.http import CHUNK_BYTES
from depot_api.client.models import Version
from depot_api.client.parallel import in_groups, run_all
from depot_api.client.problems import (
    BeingRestored,
    ConnectionLost,
    DamagedContent,
    FileChanged,
    Interrupted,
    ProblemError,
)
from depot_api.client.progress import Progress, Stage, counting
from depot_api.client.tree import WorkTree

SMALL_BYTES = 1 << 20  # up to this size a content travels in a pack
PACK_BYTES = 16 << 20
WORKERS = 4
ATTEMPTS = 3
MAX_NAMED = 10
GZIP_WINDOW = 31  # zlib's code for a gzip member
PIECE_BYTES = 1 << 19  # what is decompressed at a time: bounds memory whatever arrives
IsalError = cast(type[Exception], isal_zlib.error)  # the stubs declare the class as if it were an instance


@dataclass(frozen=True, slots=True)
class Wanted:
    """A content, and where it goes: path → the file that it replaces, None where nothing lies."""

    sha256: str
    size_bytes: int
    places: Mapping[str, FileStat | None]


def by_content(paths: Iterable[str], versions: Mapping[str, Version], files: Mapping[str, FileStat]) -> list[Wanted]:
    """What to fetch for `paths` to hold these versions in place of these files; the same content once."""
    places: defaultdict[tuple[str, int], dict[str, FileStat | None]] = defaultdict(dict)
    for path in paths:
        places[versions[path].sha256, versions[path].size_bytes][path] = files.get(path)
    return [Wanted(sha256, size_bytes, where) for (sha256, size_bytes), where in places.items()]


@dataclass(slots=True)
class Downloaded:
    """Files in place, paths where the user was faster, and how much came over the wire for it."""

    placed: dict[str, FileStat] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    fetched_objects: int = 0
    fetched_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Task:
    run: Callable[[], Downloaded]
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Downloader:
    """Fetches contents of a project into a tree."""

    depot: DepotClient
    project_id: UUID
    tree: WorkTree
    progress: Progress
    stop: Event = field(default_factory=Event)

    def download(self, wanted: Collection[Wanted]) -> Iterator[Downloaded]:
        """Yields one result for each group of contents as soon as its files are in place.

        What an archive has to restore is asked for at once, and comes last, hours later.

        Raises DamagedContent when what arrives is not what was asked for, ConnectionLost, and
        LocalFileError when a file cannot be written.
        """
        large = sorted((one for one in wanted if one.size_bytes > SMALL_BYTES), key=_size, reverse=True)
        tasks = [_Task(partial(self._fetch_large, one), one.size_bytes) for one in large]
        small = (one for one in wanted if one.size_bytes <= SMALL_BYTES)
        groups = in_groups(small, _size, PACK_BYTES, FETCH_LIMIT)
        tasks += [_Task(partial(self._fetch_small, group), sum(map(_size, group))) for group in groups]
        while True:
            self.progress.begin(Stage.FETCHING, sum(task.size_bytes for task in tasks))
            put_off: list[tuple[_Task, float]] = []
            yield from run_all([partial(_unless_restored, task, put_off) for task in tasks], WORKERS, self.stop)
            tasks = [task for task, _ in put_off]
            if not tasks:
                return
            self.progress.begin(Stage.RESTORING, sum(task.size_bytes for task in tasks))
            self.stop.wait(max(seconds for _, seconds in put_off))
            self._look_whether_stopped()

    def read(self, wanted: Collection[Wanted]) -> Iterator[tuple[str, bytes]]:
        """Yields contents of up to SMALL_BYTES with their hashes, each checked, and puts none in place."""
        for group in in_groups(wanted, _size, PACK_BYTES, FETCH_LIMIT):
            for one, content in self._small_contents(group, await_restore=True):
                yield one.sha256, content

    def _fetch_small(self, group: list[Wanted]) -> Downloaded:
        result = Downloaded()
        for one, content in self._small_contents(group, await_restore=False):
            self._place_content(one, content, result)
        return result

    def _small_contents(self, group: Collection[Wanted], *, await_restore: bool) -> Iterator[tuple[Wanted, bytes]]:
        """Raises BeingRestored before it has yielded anything, if it is not to wait."""
        waiting = {one.sha256: one for one in group}
        for attempt in range(1, ATTEMPTS + 1):
            try:
                for sha256, content in self._contents(waiting, await_restore=await_restore or attempt > 1):
                    yield waiting.pop(sha256), content
            except ConnectionLost:
                if attempt == ATTEMPTS:
                    yield from self._one_by_one(waiting.values())
                    return
            if not waiting:
                return
        raise DamagedContent(f"The depot did not send {len(waiting)} of the contents that were asked for. Try again.")

    def _one_by_one(self, wanted: Iterable[Wanted]) -> Iterator[tuple[Wanted, bytes]]:
        """A pack breaks off at what the depot cannot send; alone, that is refused by name, and the rest arrives.

        Raises DamagedContent at the end.
        """
        refused = []
        for one in wanted:
            try:
                with self.depot.open_object(self.project_id, one.sha256) as stream:
                    self._look_whether_stopped()
                    stored = bytearray().join(stream.chunks)
            except ProblemError as problem:
                refused.append(f"{', '.join(one.places) or one.sha256} cannot be had. {problem}")
            else:
                yield one, _unpacked(stored, one)
        if refused:
            raise DamagedContent(" ".join(refused[:MAX_NAMED]))

    def _contents(self, waiting: Mapping[str, Wanted], *, await_restore: bool) -> Iterator[tuple[str, bytes]]:
        """Contents of a pack stream, each checked."""
        reader = PackReader()
        with self.depot.open_pack(self.project_id, list(waiting), await_restore=await_restore) as chunks:
            sha256, stored = "", bytearray()
            for chunk in chunks:
                self._look_whether_stopped()
                for event in _events(reader, chunk):
                    match event:
                        case EntryStart():
                            sha256, stored = event.sha256, bytearray()
                            if sha256 not in waiting:
                                raise DamagedContent(f"The depot sent {sha256}, which was not asked for. Try again.")
                        case EntryData():
                            stored += event.data
                        case EntryEnd():
                            yield sha256, _unpacked(stored, waiting[sha256])

    def _place_content(self, one: Wanted, content: bytes, result: Downloaded) -> None:
        part = self.tree.part(one.sha256)
        for path, expected in one.places.items():
            try:
                part.write_bytes(content)
            except OSError as error:
                raise unwritable(part, error) from error
            self._place(part, path, expected, result)
        result.fetched_objects += 1
        result.fetched_bytes += one.size_bytes
        self.progress.advance(one.size_bytes)

    def _fetch_large(self, one: Wanted) -> Downloaded:
        result = Downloaded()
        part = self.tree.part(one.sha256)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with counting(self.progress, one.size_bytes) as advance:
                    self._gather(one, part, advance)
                break
            except (ConnectionLost, DamagedContent):
                if attempt == ATTEMPTS:
                    raise
        first: str | None = None
        for path, expected in one.places.items():
            if first is not None:
                self.tree.copy(first, part)
            if self._place(part, path, expected, result):
                first = path
        result.fetched_objects, result.fetched_bytes = 1, one.size_bytes
        return result

    def _gather(self, one: Wanted, part: Path, advance: Callable[[int], None]) -> None:
        """Fill the part, going on after the bytes that an earlier attempt left there."""
        try:
            with part.open("a+b", buffering=0) as file:
                hasher = _hash_of(file)
                if file.tell() < one.size_bytes:
                    hasher = self._append(one, file, hasher, advance)
                elif file.tell() > one.size_bytes:
                    file.truncate(0)
            if hasher.hexdigest() != one.sha256:
                part.unlink()
                raise DamagedContent(
                    f"What the depot sent for {one.sha256} is not that content. Nothing was written from it; "
                    "tell whoever runs the depot to verify this object."
                )
        except OSError as error:
            raise unwritable(part, error) from error

    def _append(
        self, one: Wanted, file: FileIO, hasher: "hashlib._Hash", advance: Callable[[int], None]
    ) -> "hashlib._Hash":
        with self.depot.open_object(self.project_id, one.sha256, file.tell(), await_restore=False) as stream:
            if stream.start != file.tell():
                file.truncate(0)
                hasher = hashlib.sha256()
            for data in _unzipped(stream.chunks, one) if stream.is_gzip else stream.chunks:
                self._look_whether_stopped()
                hasher.update(data)
                file.write(data)
                advance(len(data))
        return hasher

    def _place(self, part: Path, path: str, expected: FileStat | None, result: Downloaded) -> bool:
        try:
            result.placed[path] = self.tree.place(part, path, expected)
        except FileChanged:
            result.changed.append(path)
        return path in result.placed

    def _look_whether_stopped(self) -> None:
        if self.stop.is_set():
            raise Interrupted("Stopped.")


def _unless_restored(task: _Task, put_off: list[tuple[_Task, float]]) -> Downloaded:
    """Nothing yet, of what is being restored: when to ask again is noted."""
    try:
        return task.run()
    except BeingRestored as wait:
        put_off.append((task, wait.retry_after_seconds))
        return Downloaded()


def _events(reader: PackReader, chunk: bytes) -> Iterator[EntryStart | EntryData | EntryEnd]:
    try:
        yield from reader.feed(chunk)
    except PackError as error:
        raise DamagedContent(f"What the depot sent is not a pack of contents: {error}. Try again.") from error


def _hash_of(file: FileIO) -> "hashlib._Hash":
    """Hash of what a file holds; leaves the file at its end."""
    hasher = hashlib.sha256()
    file.seek(0)
    while chunk := file.read(CHUNK_BYTES):
        hasher.update(chunk)
    return hasher


def _unzipped(chunks: Iterator[bytes], one: Wanted) -> Iterator[bytes]:
    """The content of a gzip member, never more of it than announced."""
    unzip = isal_zlib.decompressobj(wbits=GZIP_WINDOW)
    left_bytes = one.size_bytes
    for chunk in chunks:
        waiting = chunk
        while waiting and not unzip.eof:
            data = _decompressed(unzip, waiting, one.sha256)
            left_bytes -= len(data)
            if left_bytes < 0:
                raise DamagedContent(f"The depot sent more than the {one.size_bytes} bytes of {one.sha256}.")
            yield data
            waiting = unzip.unconsumed_tail


def _decompressed(unzip: isal_zlib.Decompress, data: bytes, sha256: str) -> bytes:
    try:
        return unzip.decompress(data, max_length=PIECE_BYTES)
    except IsalError as error:
        raise DamagedContent(f"The depot sent damaged gzip for {sha256} ({error}). Try again.") from error


def _unpacked(stored: bytearray, one: Wanted) -> bytes:
    content = b"".join(_unzipped(iter((bytes(stored),)), one))
    if hashlib.sha256(content).hexdigest() != one.sha256:
        raise DamagedContent(f"What the depot sent for {one.sha256} is not that content. Nothing was written from it.")
    return content


def _size(one: Wanted) -> int:
    return one.size_bytes
