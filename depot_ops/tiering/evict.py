"""Eviction: the store's own disk as a cache. Cold content leaves it when two verified copies lie elsewhere.

First the record says that the content may be away, then it goes: nobody misses what nobody said could be gone. And only
the very file goes that was looked at before: what is sent or fetched back meanwhile is another one under the same name.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any, Literal, LiteralString

import psycopg
from pydantic import AwareDatetime, BaseModel, Field

from depot_api.blobstore.durability import sync_all
from depot_api.blobstore.errors import BlobError
from depot_api.blobstore.examine import StoredHasher, examine
from depot_api.blobstore.layout import Layout, StoredBlob
from depot_api.blobstore.store import BlobStore
from depot_ops.blobs.inventory import require_store
from depot_ops.blobs.records import BlobRecords, CatalogueUnreachable
from depot_ops.places import PlaceError
from depot_ops.postgres.client_tools import BadAddress, parse_address
from depot_ops.tiering.bucket import ObjectArchived, TieredBucket
from depot_ops.tiering.catalogue import Judged

BATCH_OBJECTS = 256
NAMED = 100

_EVICT: LiteralString = """
    UPDATE blobs SET evicted_at = now() WHERE sha256 = ANY (%s) AND removed_at IS NULL RETURNING encode(sha256, 'hex')
"""
_EVICTED: LiteralString = """
    SELECT sha256::bytea FROM blobs WHERE evicted_at IS NOT NULL AND sha256 > %s ORDER BY sha256 LIMIT %s
"""
_BACK: LiteralString = "UPDATE blobs SET evicted_at = NULL WHERE sha256 = ANY (%s)"

Owner = psycopg.Connection[Any]


class Copy(StrEnum):
    """Where content has to be, whole, before it leaves the store's disk."""

    MIRROR = "mirror"
    BUCKET = "bucket"


class Kept(BaseModel):
    """Content that would have gone, and stays because a copy of it could not be proved."""

    sha256: str
    copy_name: Copy
    seen: str


class Evicted(BaseModel):
    """The evidence of one run."""

    schema_version: Literal[1] = 1
    started_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    duration_seconds: float = 0.0
    cold_objects: int = 0
    """On the store's disk, cold by the policy, and there for longer than the time that the cache keeps things."""
    cold_bytes: int = 0
    evicted_objects: int = 0
    freed_bytes: int = 0
    kept_objects: int = 0
    kept: list[Kept] = []
    """The first of them."""
    returned_objects: int = 0
    """Evicted once, and fetched back by somebody since."""


@dataclass(frozen=True)
class Eviction:
    """Copies of the store, and how long what came to its disk stays there."""

    store: Path
    mirror: Path
    bucket: TieredBucket
    owner_url: str
    cache: timedelta
    workers: int

    def run(self, judged: Iterable[Judged], *, delete: bool) -> Evicted:
        """Evict what the policy lets go; without `delete` only count. Killed, it goes on the next time.

        Raises CopyUnreachable, CatalogueUnreachable and OSError.
        """
        started, result = time.monotonic(), Evicted()
        layout = require_store(self.store)
        require_store(self.mirror)
        try:
            parse_address(self.owner_url)
            with (
                psycopg.connect(self.owner_url, autocommit=True) as owner,
                closing(BlobStore(self.store)) as staging,
                ThreadPoolExecutor(self.workers) as pool,
            ):
                staging.prepare()
                result.returned_objects = _returned(owner, layout)
                for cold in _batches(self._cold(layout, judged, result)):
                    if delete:
                        proved = self._proved(owner, cold, pool, result)
                        _remove(owner, layout, proved, staging.temporary_file, result)
        except (BadAddress, psycopg.Error) as error:
            raise CatalogueUnreachable(f"The depot's database refused: {str(error).strip()}") from error
        result.duration_seconds = round(time.monotonic() - started, 3)
        return result

    def _cold(self, layout: Layout, judged: Iterable[Judged], result: Evicted) -> Iterator["_OnDisk"]:
        newest_ns = time.time_ns() - int(self.cache.total_seconds() * 1e9)
        for one in judged:
            if one.verdict is None or one.verdict.keep_on_disk:
                continue
            try:
                status = layout.object_path(one.sha256).stat()
            except FileNotFoundError:
                continue
            if status.st_mtime_ns <= newest_ns:
                result.cold_objects += 1
                result.cold_bytes += status.st_size
                yield _OnDisk(one.sha256, status)

    def _proved(
        self, owner: Owner, cold: Sequence["_OnDisk"], pool: ThreadPoolExecutor, result: Evicted
    ) -> list["_OnDisk"]:
        """Those of which both other copies are whole, by reading all of them now."""
        recorded = BlobRecords(owner).of([one.sha256 for one in cold])
        known = [(one, recorded[one.sha256].blob) for one in cold if one.sha256 in recorded]
        doubts = pool.map(lambda pair: self._doubt(pair[1]), known)
        proved = []
        for (one, _), doubt in zip(known, doubts, strict=True):
            if doubt is None:
                proved.append(one)
                continue
            result.kept_objects += 1
            result.kept += [doubt] if len(result.kept) < NAMED else []
        return proved

    def _doubt(self, blob: StoredBlob) -> Kept | None:
        for copy, read in ((Copy.MIRROR, self._in_mirror), (Copy.BUCKET, self._in_bucket)):
            try:
                seen = None if read(blob.sha256) == blob else "its stored form is not the recorded one"
            except ObjectArchived:
                seen = "it is archived, and cannot be read without a restore"
            except (BlobError, PlaceError, OSError) as error:
                seen = str(error)
            if seen is not None:
                return Kept(sha256=blob.sha256, copy_name=copy, seen=seen)
        return None

    def _in_mirror(self, sha256: str) -> StoredBlob:
        return examine(Layout(self.mirror), sha256)

    def _in_bucket(self, sha256: str) -> StoredBlob:
        hasher = StoredHasher(sha256)
        for chunk in self.bucket.chunks(f"objects/{sha256[:2]}/{sha256}.bin.gz"):
            hasher.feed(chunk)
        return hasher.finish()


@dataclass(frozen=True, slots=True)
class _OnDisk:
    sha256: str
    status: os.stat_result


def _remove(
    owner: Owner, layout: Layout, proved: Sequence[_OnDisk], temporary: Callable[[], Path], result: Evicted
) -> None:
    hashes = [bytes.fromhex(one.sha256) for one in proved]
    allowed = {row[0] for row in owner.execute(_EVICT, (hashes,))}
    gone = [one for one in proved if one.sha256 in allowed and _take(layout.object_path(one.sha256), one, temporary())]
    sync_all({layout.object_path(one.sha256).parent for one in gone}, layout.root)
    result.evicted_objects += len(gone)
    result.freed_bytes += sum(one.status.st_size for one in gone)


def _take(path: Path, looked_at: _OnDisk, aside: Path) -> bool:
    """Remove the file that was looked at, and no other. Whoever has it open reads on."""
    try:
        path.rename(aside)
    except FileNotFoundError:
        return False
    if _same(aside.stat(), looked_at.status):
        aside.unlink()
        return True
    aside.rename(path)  # the same content, sent or fetched back a moment ago
    return False


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    """By its time too: a file system gives the number of a file that was replaced to the next one."""
    return os.path.samestat(one, other) and one.st_mtime_ns == other.st_mtime_ns


def _returned(owner: Owner, layout: Layout) -> int:
    """Take the mark from what lies on the disk again: from now on it is missed when it is gone."""
    last, count = b"", 0
    while evicted := [row[0] for row in owner.execute(_EVICTED, (last, BATCH_OBJECTS))]:
        last = evicted[-1]
        back = [sha256 for sha256 in evicted if layout.object_path(sha256.hex()).exists()]
        owner.execute(_BACK, (back,))
        count += len(back)
    return count


def _batches(cold: Iterator[_OnDisk]) -> Iterator[list[_OnDisk]]:
    while batch := list(islice(cold, BATCH_OBJECTS)):
        yield batch
