"""The store once more in a bucket: every object and every document of `refs/`, under the names they have on disk.

An object is read through before it is sent, so that damage never travels, and S3 compares what arrives. Nothing is
deleted here. Killed and run again, it goes on: what lies there in its size is not sent again.
"""

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TypeVar

from pydantic import AwareDatetime, BaseModel, Field

from depot_api.blobstore.copies import removals_held_off
from depot_api.blobstore.errors import BlobDamaged, BlobMissing
from depot_api.blobstore.examine import StoredHasher
from depot_api.blobstore.layout import Layout, StoredBlob
from depot_api.blobstore.reader import file_chunks
from depot_api.blobstore.refs import VERSION_NAME
from depot_ops.blobs.inventory import (
    OBJECT_NAME_LENGTH,
    OBJECT_SUFFIX,
    PREFIXES,
    SHA256_DIGITS,
    CopyUnreachable,
    list_objects,
    project_refs,
    require_store,
    scan,
)
from depot_ops.blobs.mirror import SETTLED_SECONDS, Damage, read_ref
from depot_ops.blobs.rate import RateLimit
from depot_ops.blobs.records import CatalogueUnreachable, open_records
from depot_ops.evidence import Figures, Finding, Status
from depot_ops.places import Place, PlaceDamaged, PlaceError, PlaceMissing, Stored

# So many wait for a worker, that none is idle while a large object is sent.
WAITING_PER_WORKER = 4
# What has changed longer ago was compared by a nightly pass: to compare all each time would be a request for each.
COMPARED_SECONDS = 90_000.0
OBJECTS = "objects/"
Told = Callable[[int, int], None]
Item = TypeVar("Item")
Done = TypeVar("Done")


class PushError(Exception):
    """The push cannot go on; the message says why and what to do."""


@dataclass(frozen=True)
class PushOptions:
    """How fast a push may be."""

    workers: int = 4
    bytes_per_second: int | None = None


class Pushed(BaseModel):
    """The evidence of one pass."""

    schema_version: int = 1
    source: str
    target: str
    started_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    duration_seconds: float = 0.0
    objects_seen: int = 0
    objects_sent: int = 0
    sent_bytes: int = 0
    refs_sent: int = 0
    # The store's own copy is not what its name says: it is not sent, and a scrub repairs it.
    damaged: list[Damage] = []
    unreadable_refs: list[str] = []

    @property
    def has_copied(self) -> bool:
        return bool(self.objects_sent or self.refs_sent)

    @property
    def is_complete(self) -> bool:
        return not (self.damaged or self.unreadable_refs)


@dataclass
class Push:
    """One way from the store to a place; used by one thread, works with several."""

    source: Layout
    place: Place
    options: PushOptions = field(default_factory=PushOptions)
    stop: threading.Event = field(default_factory=threading.Event)
    _looked_ns: int | None = None

    def __post_init__(self) -> None:
        self._rate = RateLimit(self.options.bytes_per_second)

    def reconcile(self, told: Told = lambda _done, _all: None) -> Pushed:
        """Compare all names and sizes, and send what the place lacks. Raises PushError."""
        return self._pass(lambda result: self._missing(result, told), self._stale_refs)

    def follow_once(self) -> Pushed:
        """Send what came since the last look, without listing the place; the first look is a reconcile.

        Raises PushError.
        """
        began_ns = time.time_ns()
        if self._looked_ns is None:
            result = self.reconcile()
        else:
            # The file system's clock is coarse, and may be a server's.
            since_ns = self._looked_ns - int(SETTLED_SECONDS * 1e9)
            result = self._pass(lambda result: self._recent(since_ns, result), lambda: self._recent_refs(since_ns))
        if not self.stop.is_set():
            self._looked_ns = began_ns
        return result

    def _pass(
        self, wanted: Callable[[Pushed], Iterable["_Wanted"]], refs: Callable[[], Iterator["_Document"]]
    ) -> Pushed:
        result, started = Pushed(source=str(self.source.root), target=str(self.place)), time.monotonic()
        try:
            with ThreadPoolExecutor(self.options.workers) as pool:
                for _, sent in self._each(pool, self.send, wanted(result)):
                    _count(sent, result)
                for document, is_new in self._each(pool, self._send_ref, refs()):
                    if is_new is None:
                        result.unreadable_refs.append(document.key.removeprefix("refs/"))
                    else:
                        result.refs_sent += is_new
        except (PlaceError, OSError) as error:
            raise PushError(f"{self.source.root} could not be pushed: {error}. The next pass goes on") from error
        result.duration_seconds = round(time.monotonic() - started, 3)
        return result

    def _each(
        self, pool: ThreadPoolExecutor, do: Callable[[Item], Done], items: Iterable[Item]
    ) -> Iterator[tuple[Item, Done]]:
        """In their order, however many there are: only a few wait at a time."""
        waiting: deque[tuple[Item, Future[Done]]] = deque()
        for item in items:
            waiting.append((item, pool.submit(do, item)))
            if len(waiting) > WAITING_PER_WORKER * self.options.workers:
                first, done = waiting.popleft()
                yield first, done.result()
        yield from ((item, done.result()) for item, done in waiting)

    # Objects ------------------------------------------------------------------------------------------------------

    def _missing(self, result: Pushed, told: Told) -> Iterator["_Wanted"]:
        for done, (prefix, there) in enumerate(sizes_by_prefix(self.place)):
            have = list_objects(self.source, prefix)
            result.objects_seen += len(have)
            for sha256, listed in have.items():
                if self.stop.is_set():
                    return
                if there.get(sha256) != listed.st_size:
                    yield _Wanted(sha256, listed.st_size, is_free=sha256 not in there)
            told(done + 1, len(PREFIXES))

    def _recent(self, since_ns: int, result: Pushed) -> Iterator["_Wanted"]:
        """By the time of their names, not of their bytes: a large upload has old bytes when it gets its name."""
        for prefix in (prefix for prefix in self.source.prefixes() if _changed_since(prefix, since_ns)):
            for sha256, listed in list_objects(self.source, prefix.name).items():
                if listed.st_ctime_ns > since_ns and not self.stop.is_set():
                    result.objects_seen += 1
                    yield _Wanted(sha256, listed.st_size, is_free=False)

    def send(self, wanted: "_Wanted") -> int | Damage | None:
        """How many bytes were sent. Nothing is removed for good meanwhile. Raises PlaceError."""
        self._rate.spend(wanted.size_bytes, self.stop)
        if self.stop.is_set():
            return None
        with removals_held_off(self.source):
            return self._send(wanted)

    def _send(self, wanted: "_Wanted") -> int | Damage | None:
        path, key = self.source.object_path(wanted.sha256), object_key(wanted.sha256)
        try:
            there = None if wanted.is_free else self.place.size_bytes(key)
            if there == wanted.size_bytes:
                return None
            # What lies there in another size is not whole. Onto nothing is written on the condition that it is nothing.
            send = self.place.replace if there is not None else partial(self.place.put, is_free=True)
            send(key, path, read_through(path, wanted.sha256)[1])
        except (BlobDamaged, PlaceDamaged) as error:
            return Damage(sha256=wanted.sha256, seen=str(error))
        except BlobMissing:
            return None  # removed since it was listed
        return wanted.size_bytes

    # refs/ --------------------------------------------------------------------------------------------------------

    def _stale_refs(self) -> Iterator["_Document"]:
        """Versions never change; of the others the content is compared."""
        for project in project_refs(self.source):
            there = {one.key.rpartition("/")[2] for one in self.place.list(f"refs/{project.name}/")}
            for entry in scan(project):
                if self.stop.is_set():
                    return
                if entry.name not in there or not VERSION_NAME.fullmatch(entry.name):
                    yield _Document(Path(entry.path), f"refs/{project.name}/{entry.name}", entry.name in there)

    def _recent_refs(self, since_ns: int) -> Iterator["_Document"]:
        for project in (project for project in project_refs(self.source) if _changed_since(project, since_ns)):
            for entry in scan(project):
                if entry.stat().st_ctime_ns > since_ns and not self.stop.is_set():
                    yield _Document(Path(entry.path), f"refs/{project.name}/{entry.name}", compare=True)

    def _send_ref(self, document: "_Document") -> bool | None:
        """Whether it was sent; None when it cannot be read as JSON: a damaged one must not replace a good one."""
        content, _ = read_ref(document.path)
        if content is None:
            return None
        sha256 = hashlib.sha256(content).hexdigest()
        if document.compare and _sha256_there(self.place, document.key) == sha256:
            return False
        try:
            self.place.replace(document.key, document.path, sha256)
        except PlaceDamaged:
            return False  # replaced while it was sent: the next pass sends the newer one
        return True


@dataclass(frozen=True, slots=True)
class _Wanted:
    sha256: str
    size_bytes: int
    is_free: bool
    """Whether a listing has just shown that nothing lies there."""


@dataclass(frozen=True, slots=True)
class _Document:
    path: Path
    key: str
    compare: bool


def object_key(sha256: str) -> str:
    """Under which an object lies in a place, as below the store's root."""
    return f"{OBJECTS}{sha256[:2]}/{sha256}{OBJECT_SUFFIX}"


def sizes_by_prefix(place: Place) -> Iterator[tuple[str, dict[str, int]]]:
    """Of each prefix in turn, from one listing of all: object storage bills for each page. Raises PlaceError."""
    groups = groupby(place.list(OBJECTS), key=lambda one: one.key.removeprefix(OBJECTS).partition("/")[0])
    found = next(groups, None)
    for prefix in PREFIXES:
        while found is not None and found[0] < prefix:  # what else somebody put there
            found = next(groups, None)
        yield prefix, _sizes(found[1]) if found is not None and found[0] == prefix else {}


def _sizes(listed: Iterable[Stored]) -> dict[str, int]:
    named = ((one.key.rpartition("/")[2], one.size_bytes) for one in listed)
    return {
        name[:SHA256_DIGITS]: size_bytes
        for name, size_bytes in named
        if len(name) == OBJECT_NAME_LENGTH and name.endswith(OBJECT_SUFFIX)
    }


def read_through(path: Path, sha256: str) -> tuple[StoredBlob, str]:
    """What it is, and the SHA-256 of its stored form. Raises BlobMissing, and BlobDamaged when it is not that."""
    content, stored = StoredHasher(sha256), hashlib.sha256()
    for chunk in file_chunks(path, sha256):
        content.feed(chunk)
        stored.update(chunk)
    return content.finish(), stored.hexdigest()


def _sha256_there(place: Place, key: str) -> str | None:
    try:
        return place.sha256(key)
    except PlaceMissing:
        return None


def _changed_since(directory: Path, since_ns: int) -> bool:
    try:
        return directory.stat().st_mtime_ns > since_ns
    except FileNotFoundError:
        return False


def _count(sent: int | Damage | None, result: Pushed) -> None:
    if isinstance(sent, Damage):
        result.damaged.append(sent)
    elif sent is not None:
        result.objects_sent += 1
        result.sent_bytes += sent


# Checks -------------------------------------------------------------------------------------------------------------


def check_push_lag(source: Path, open_place: Callable[[], Place], max_lag_seconds: float) -> Finding:
    """How far the bucket is behind the store: objects, bytes, documents, and the age of the oldest that waits."""
    name, objects, size_bytes, oldest_ns = "object_storage_lag", 0, 0, None
    try:
        layout, place = require_store(source), open_place()
        for prefix, there in sizes_by_prefix(place):
            for sha256, listed in list_objects(layout, prefix).items():
                if there.get(sha256) != listed.st_size:
                    objects, size_bytes = objects + 1, size_bytes + listed.st_size
                    oldest_ns = min(oldest_ns or listed.st_ctime_ns, listed.st_ctime_ns)
        waiting_refs = list(_waiting_refs(layout, place, max_lag_seconds))
        oldest_ns = min([*waiting_refs, *([oldest_ns] if oldest_ns else [])], default=None)
    except (CopyUnreachable, PlaceError, OSError) as error:
        return Finding(check=name, status=Status.UNKNOWN, detail=str(error))
    lag_seconds = max(0.0, round(time.time() - oldest_ns / 1e9, 3)) if oldest_ns is not None else 0.0
    waiting = f"{objects:,} objects of {size_bytes:,} bytes and {len(waiting_refs):,} documents"
    detail = f"{waiting} wait, the oldest {lag_seconds} s"
    status = Status.HEALTHY if lag_seconds <= max_lag_seconds else Status.UNHEALTHY
    if status is Status.UNHEALTHY:
        detail += f"; more than {max_lag_seconds:.0f} s. Is `depot-ops blobs push --follow` running?"
    figures: Figures = {
        "objects": objects,
        "size_bytes": size_bytes,
        "documents": len(waiting_refs),
        "oldest_unpushed_seconds": lag_seconds,
    }
    return Finding(check=name, status=status, detail=detail, figures=figures)


def _waiting_refs(layout: Layout, place: Place, max_lag_seconds: float) -> Iterator[int]:
    """Since when each document waits that is not there, or not as it is here. Raises PlaceError and OSError."""
    now = time.time()
    for project in project_refs(layout):
        there = {one.key.rpartition("/")[2]: one.size_bytes for one in place.list(f"refs/{project.name}/")}
        for entry in scan(project):
            status = entry.stat()
            is_compared = max_lag_seconds < now - status.st_ctime < COMPARED_SECONDS
            may_differ = is_compared and not VERSION_NAME.fullmatch(entry.name)
            key = f"refs/{project.name}/{entry.name}"
            if there.get(entry.name) != status.st_size or (may_differ and _differs(place, key, Path(entry.path))):
                yield status.st_ctime_ns


def _differs(place: Place, key: str, path: Path) -> bool:
    return _sha256_there(place, key) != hashlib.sha256(path.read_bytes()).hexdigest()


def check_push_complete(open_place: Callable[[], Place], database_url: str, max_lag_seconds: float) -> Finding:
    """Is every object that the catalogue refers to in the bucket, in its recorded size?"""
    name, settled = "object_storage_complete", datetime.now(UTC) - timedelta(seconds=max_lag_seconds)
    objects = size_bytes = 0
    missing: list[str] = []
    try:
        place = open_place()
        with open_records(database_url) as records:
            for prefix, there in sizes_by_prefix(place):
                absent = []
                for sha256, recorded in records.of_prefix(prefix).items():
                    if there.get(sha256) == recorded.blob.stored_bytes:
                        objects, size_bytes = objects + 1, size_bytes + recorded.blob.stored_bytes
                    elif recorded.written_at < settled:
                        absent.append(sha256)
                missing += sorted(records.of(absent))  # without those that were removed for good meanwhile
    except (CatalogueUnreachable, PlaceError) as error:
        return Finding(check=name, status=Status.UNKNOWN, detail=str(error))
    figures: Figures = {"objects": objects, "size_bytes": size_bytes, "missing_objects": len(missing)}
    if missing:
        detail = f"{len(missing):,} objects that the catalogue names are not in {place}, first {missing[0]}"
        return Finding(check=name, status=Status.UNHEALTHY, detail=detail, figures=figures)
    return Finding(check=name, status=Status.HEALTHY, detail=f"all {objects:,} objects are in {place}", figures=figures)
