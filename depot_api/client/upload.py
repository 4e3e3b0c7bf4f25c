"""Hashing files and sending what the depot lacks.

Each thread hashes a group of files, asks which contents are missing, and sends those, so that hashing
in one overlaps with sending in another. Small files are read once: the very bytes that were hashed
are sent, so that they cannot change in between.
"""

import hashlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Event
from uuid import UUID

from depot_api.blobstore.pack import encode_header
from depot_api.client.depot import DepotClient
from depot_api.client.files import FileStat, current_stat, hash_file, read_chunks
from depot_api.client.http import CHUNK_BYTES, Body
from depot_api.client.parallel import in_groups, run_all
from depot_api.client.problems import FileChanged, Interrupted, ProblemError
from depot_api.client.progress import Progress, Stage, counting
from depot_api.client.workspace import Seen, now_ns

SMALL_BYTES = 1 << 20  # up to this size a file travels in a pack
PACK_BYTES = 16 << 20  # so many that the depot's fsyncs are shared, so few that each thread can hold one in memory
PACK_FILES = 2_000  # bounds the time until the first byte of a pack of tiny files leaves
WORKERS = 3
HASH_MISMATCH = "hash-mismatch"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file whose content the depot may lack; `seen` when its hash is known without reading it."""

    path: str
    stat: FileStat
    seen: Seen | None = None


@dataclass(slots=True)
class Uploaded:
    """Files whose content is now in the depot, and how much had to be sent for that."""

    seen: dict[str, Seen] = field(default_factory=dict)
    sent_objects: int = 0
    sent_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Uploader:
    """Sends files of the tree `root` to a project. `known` are contents that the project surely has."""

    depot: DepotClient
    project_id: UUID
    root: Path
    known: frozenset[str]
    progress: Progress
    stop: Event = field(default_factory=Event)

    def upload(self, candidates: Collection[Candidate]) -> Iterator[Uploaded]:
        """Yields one result for each group of files as soon as the depot has them durably.

        Raises FileChanged when a file changes while it is read, twice in a row.
        """
        self.progress.begin(Stage.SENDING, sum(map(_size, candidates)))
        # The largest first: a big file that begins last would be waited for alone.
        by_size = sorted(candidates, key=_size, reverse=True)
        large = [one for one in by_size if one.stat.size_bytes > SMALL_BYTES]
        small = [one for one in candidates if one.stat.size_bytes <= SMALL_BYTES]
        tasks: list[Callable[[], Uploaded]] = [partial(self._send_large, one) for one in large]
        tasks += [partial(self._send_small, group) for group in in_groups(small, _size, PACK_BYTES, PACK_FILES)]
        return run_all(tasks, WORKERS, self.stop)

    def _send_large(self, one: Candidate) -> Uploaded:
        try:
            return self._send_large_once(one)
        except FileChanged:
            again = current_stat(self.root / one.path)
            if again is None:
                raise
            return self._send_large_once(Candidate(one.path, again))

    def _send_large_once(self, one: Candidate) -> Uploaded:
        path = self.root / one.path
        seen = one.seen or self._hash(path, one.stat)
        result = Uploaded({one.path: seen})
        with counting(self.progress, one.stat.size_bytes) as advance:
            if seen.sha256 in self.known or not self.depot.missing(self.project_id, [seen.sha256]):
                return result
            body = Body(one.stat.size_bytes, lambda: _told(read_chunks(path, one.stat, self.stop), advance))
            try:
                self.depot.put_object(self.project_id, seen.sha256, body)
            except ProblemError as problem:
                if problem.slug == HASH_MISMATCH:
                    raise FileChanged(f"{path} changed while it was being sent. Try again.") from problem
                raise
        result.sent_objects, result.sent_bytes = 1, one.stat.size_bytes
        return result

    def _hash(self, path: Path, stat: FileStat) -> Seen:
        looked_at_ns = now_ns()
        return Seen(stat, hash_file(path, stat, self.stop), looked_at_ns)

    def _send_small(self, group: list[Candidate]) -> Uploaded:
        result = Uploaded()
        contents: dict[str, bytes] = {}
        for one in group:
            result.seen[one.path] = one.seen or self._read(one, contents)
        unsure = {seen.sha256 for seen in result.seen.values()} - self.known
        missing = self.depot.missing(self.project_id, sorted(unsure)) if unsure else set()
        for one in group:  # hashed by an earlier run that ended before the content arrived
            if one.seen and one.seen.sha256 in missing and one.seen.sha256 not in contents:
                result.seen[one.path] = self._read(one, contents)
                missing.add(result.seen[one.path].sha256)
        pack = [(sha256, content) for sha256, content in contents.items() if sha256 in missing]
        result.sent_objects, result.sent_bytes = len(pack), sum(len(content) for _, content in pack)
        if pack:
            self.depot.put_pack(self.project_id, self._pack_body(pack))
        self.progress.advance(sum(one.stat.size_bytes for one in group))
        return result

    def _read(self, one: Candidate, contents: dict[str, bytes]) -> Seen:
        """Read a small file whole and put it into `contents` under its hash."""
        try:
            seen, content = self._read_once(one.path, one.stat)
        except FileChanged:
            again = current_stat(self.root / one.path)
            if again is None or again.size_bytes > SMALL_BYTES:
                raise
            seen, content = self._read_once(one.path, again)
        contents[seen.sha256] = content
        return seen

    def _read_once(self, path: str, stat: FileStat) -> tuple[Seen, bytes]:
        looked_at_ns = now_ns()
        content = b"".join(map(bytes, read_chunks(self.root / path, stat, self.stop)))
        return Seen(stat, hashlib.sha256(content).hexdigest(), looked_at_ns), content

    def _pack_body(self, pack: list[tuple[str, bytes]]) -> Body:
        framed = b"".join(piece for sha256, content in pack for piece in (encode_header(sha256, len(content)), content))
        return Body(len(framed), lambda: self._stoppable(memoryview(framed)))

    def _stoppable(self, framed: memoryview) -> Iterator[memoryview]:
        for start in range(0, len(framed), CHUNK_BYTES):
            if self.stop.is_set():
                raise Interrupted("Stopped.")
            yield framed[start : start + CHUNK_BYTES]


def _told(chunks: Iterator[memoryview], advance: Callable[[int], None]) -> Iterator[memoryview]:
    for chunk in chunks:
        yield chunk
        advance(len(chunk))


def _size(one: Candidate) -> int:
    return one.stat.size_bytes
