"""The way back: a store is filled from a copy of it, every object verified, and the result is proved.

Nothing is written to the copy that it is filled from. Killed and run again, it goes on.
"""

import time
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, LiteralString

import psycopg
from pydantic import AwareDatetime, BaseModel, Field

from depot_api.blobstore.copies import keep_aside, removals_held_off, stage_copy
from depot_api.blobstore.errors import BlobArchived, BlobDamaged, BlobMissing, BlobUnreachable, StorageFull
from depot_api.blobstore.examine import examine
from depot_api.blobstore.layout import Layout, StoredBlob
from depot_api.blobstore.refs import VERSION_NAME
from depot_api.blobstore.store import BlobStore
from depot_api.blobstore.writer import StagedBlob
from depot_ops.blobs.inventory import PREFIXES, list_objects, project_refs, require_store
from depot_ops.blobs.mirror import BATCH_OBJECTS, Mirror, Mirrored, MirrorError, MirrorOptions, read_ref
from depot_ops.blobs.push import sizes_by_prefix
from depot_ops.blobs.records import AffectedVersion, BlobRecords
from depot_ops.durable import fsync, make_directories
from depot_ops.evidence import Figures, Finding, Status
from depot_ops.places import Place, PlaceDamaged, PlaceError

PROVED = "blobs_restored"
NAMED = 1000
_WANTED: LiteralString = """
    SELECT encode(b.sha256::bytea, 'hex'), b.size_bytes, b.stored_bytes, b.stored_crc32,
           EXISTS (SELECT FROM asset_versions v WHERE v.sha256 = b.sha256)
           OR EXISTS (SELECT FROM shelf_items s WHERE s.sha256 = b.sha256)
           OR EXISTS (SELECT FROM merge_conflicts c WHERE c.resolved_sha256 = b.sha256)
    FROM blobs b WHERE b.removed_at IS NULL"""
_OF_PROJECT: LiteralString = """
    AND (EXISTS (SELECT FROM asset_versions v WHERE v.sha256 = b.sha256 AND v.project_id = %(project)s)
         OR EXISTS (SELECT FROM shelf_items s WHERE s.sha256 = b.sha256 AND s.project_id = %(project)s)
         OR EXISTS (SELECT FROM merge_conflicts c WHERE c.resolved_sha256 = b.sha256 AND c.project_id = %(project)s))"""
# The whole history of the branch, also what it has from its ancestors.
_OF_BRANCH: LiteralString = """
    AND b.sha256 IN (SELECT h.sha256 FROM branch_lineage l
                     JOIN branch_heads h ON h.branch_id = l.ancestor_id AND h.from_no <= l.upto_no
                     WHERE l.branch_id = %(branch)s)"""
_IN_ORDER: LiteralString = " ORDER BY b.sha256"
_PROJECT = "SELECT id FROM projects WHERE name = %s OR id::text = %s"
_BRANCH = "SELECT id FROM branches WHERE project_id = %s AND (name = %s OR id::text = %s)"

Source = Callable[[str, Path], StagedBlob]
"""Stages an object from a copy under a temporary name, hashed as it arrives.

Raises BlobMissing, BlobDamaged (also when the copy cannot be read), BlobArchived and BlobUnreachable; StorageFull and
OSError are of the temporary file.
"""
StillWanted = Callable[[Sequence[str]], Container[str]]
"""Those of these hashes that have not been removed for good."""
Unfillable = OSError | StorageFull | BlobUnreachable


class BlobRestoreError(Exception):
    """The restore cannot go on; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """An object that has to be in the store; `blob` as it was recorded, where there is a record."""

    sha256: str
    blob: StoredBlob | None
    is_referenced: bool


class LostBlob(BaseModel):
    """An object that something refers to and that no copy has."""

    sha256: str
    seen: str


class RestoredBlobs(BaseModel):
    """The evidence of one restore of content."""

    schema_version: Literal[1] = 1
    target: str
    started_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    duration_seconds: float = 0.0
    objects: int = 0
    """In the store, read through and found to be what they are called."""
    size_bytes: int = 0
    copied_objects: int = 0
    copied_bytes: int = 0
    documents: int = 0
    unreadable_documents: list[str] = []
    lost_objects: int = 0
    lost: list[LostBlob] = []
    """The first of them."""
    affected: list[AffectedVersion] = []
    unreferenced_lost_objects: int = 0
    """Uploaded and never referred to: whoever sent them is asked for them again."""

    def finding(self) -> Finding:
        """The restore as one answer."""
        figures: Figures = {
            "objects": self.objects,
            "size_bytes": self.size_bytes,
            "copied_objects": self.copied_objects,
            "lost_objects": self.lost_objects,
            "duration_seconds": self.duration_seconds,
        }
        detail = f"{self.objects:,} objects of {self.size_bytes:,} bytes have their SHA-256"
        if self.lost_objects:
            detail = f"{self.lost_objects:,} objects are whole in no copy, first {self.lost[0].sha256}; {detail}"
        if self.unreadable_documents:
            detail += f"; {len(self.unreadable_documents):,} documents of refs/ cannot be read"
        bad = self.lost_objects or self.unreadable_documents
        return Finding(check=PROVED, status=Status.UNHEALTHY if bad else Status.HEALTHY, detail=detail, figures=figures)


# What is wanted -----------------------------------------------------------------------------------------------------


def all_of_copies(mirror: Path | None, bucket: Place | None) -> Iterator[Wanted]:
    """Everything that lies in either copy, when there is no catalogue. Raises CopyUnreachable and PlaceError."""
    layout = require_store(mirror) if mirror else None
    for prefix, there in sizes_by_prefix(bucket) if bucket else ((prefix, {}) for prefix in PREFIXES):
        near = list_objects(layout, prefix).keys() if layout else set()
        yield from (Wanted(sha256, None, True) for sha256 in sorted(there.keys() | near))


def of_catalogue(
    catalogue: psycopg.Connection[Any], project: str | None = None, branch: str | None = None
) -> Iterator[Wanted]:
    """What the catalogue names: everything, or of one project, or the history of one of its branches.

    Raises BlobRestoreError. Streams: memory does not grow with the depot.
    """
    query, given = _WANTED, {}
    if project is not None:
        given["project"] = _known(catalogue, f"project {project}", _PROJECT, (project, project))
        query += _OF_PROJECT
    if branch is not None:
        parameters = (given.get("project"), branch, branch)
        given["branch"] = _known(catalogue, f"branch {branch} in that project", _BRANCH, parameters)
        query += _OF_BRANCH
    with catalogue.transaction(), catalogue.cursor(name="wanted_blobs") as cursor:
        cursor.itersize = BATCH_OBJECTS
        for sha256, size_bytes, stored_bytes, crc32, is_referenced in cursor.execute(query + _IN_ORDER, given):
            yield Wanted(sha256, StoredBlob(sha256, size_bytes, stored_bytes, crc32), is_referenced)


def _known(catalogue: psycopg.Connection[Any], what: str, query: LiteralString, parameters: tuple[Any, ...]) -> Any:
    row = catalogue.execute(query, parameters).fetchone()
    if row is None:
        raise BlobRestoreError(f"The catalogue has no {what}. Name it as the depot does, or by its id.")
    return row[0]


def affected_by(catalogue: psycopg.Connection[Any], lost: Iterable[LostBlob]) -> list[AffectedVersion]:
    """The versions that cannot be had any more, the first of them."""
    return BlobRecords(catalogue).affected([blob.sha256 for blob in lost])


# Restoring ----------------------------------------------------------------------------------------------------------


def directory_source(copy: Path) -> Source:
    """A mirror, or a store, on a disk. Raises CopyUnreachable."""
    return partial(stage_copy, require_store(copy))


def restore_blobs(
    wanted: Iterator[Wanted],
    sources: list[Source],
    target: Path,
    workers: int,
    told: Callable[[int], None] = lambda _objects: None,
    still_wanted: StillWanted | None = None,
) -> RestoredBlobs:
    """Make every wanted object whole in the store at `target`: what lies there is read, the rest comes from `sources`.

    With `still_wanted`, what was removed for good meanwhile does not come back: the depot of the catalogue may run.
    Raises BlobRestoreError; what was restored until then stays, and a second run goes on.
    """
    result, started = RestoredBlobs(target=str(target)), time.monotonic()
    target.mkdir(parents=True, exist_ok=True)
    with closing(BlobStore(target)) as store, ThreadPoolExecutor(workers) as pool:
        store.prepare()
        restorer = _Restorer(store, Layout(target), sources, result, still_wanted or frozenset)
        while batch := list(islice(wanted, BATCH_OBJECTS)):
            restorer.restore(batch, pool)
            told(result.objects)
    result.duration_seconds = round(time.monotonic() - started, 3)
    return result


@dataclass(frozen=True)
class _Restorer:
    store: BlobStore
    layout: Layout
    sources: list[Source]
    result: RestoredBlobs
    still_wanted: StillWanted

    def restore(self, batch: list[Wanted], pool: ThreadPoolExecutor) -> None:
        found = list(pool.map(self._find, batch))
        staged = [one for one in found if isinstance(one, StagedBlob)]
        for one in found:
            if isinstance(one, Unfillable):
                self.store.discard(staged)
                raise BlobRestoreError(f"{self.layout.root} cannot be filled: {one}. Repair it; a second run goes on.")
        copied = self._commit(staged)
        self.result.copied_objects += len(copied)
        self.result.copied_bytes += sum(blob.stored_bytes for blob in copied)
        for one, want in zip(found, batch, strict=True):
            if isinstance(one, str):
                self._lose(want, one)
        for blob in (*copied, *(one for one in found if isinstance(one, StoredBlob))):
            self.result.objects += 1
            self.result.size_bytes += blob.size_bytes

    def _commit(self, staged: list[StagedBlob]) -> list[StoredBlob]:
        with removals_held_off(self.layout):
            wanted = self.still_wanted([blob.sha256 for blob in staged])
            self.store.discard([blob for blob in staged if blob.sha256 not in wanted])
            staged = [blob for blob in staged if blob.sha256 in wanted]
            for blob in staged:
                if self.layout.object_path(blob.sha256).exists():
                    keep_aside(self.layout, blob.sha256)
            return self.store.commit(staged)

    def _lose(self, want: Wanted, seen: str) -> None:
        if not want.is_referenced:
            self.result.unreferenced_lost_objects += 1
            return
        self.result.lost_objects += 1
        if len(self.result.lost) < NAMED:
            self.result.lost.append(LostBlob(sha256=want.sha256, seen=seen))

    def _find(self, want: Wanted) -> StoredBlob | StagedBlob | str | Unfillable:
        """The object as it lies whole in the store, or staged from a source, or why nobody has it.

        Errors are returned: one that was raised would leave the copies of the others behind.
        """
        seen = []
        try:
            here = examine(self.layout, want.sha256)
            if want.blob in (None, here):
                return here
        except BlobMissing:
            pass
        except BlobDamaged as error:
            seen.append(f"{error} in the store")
        for source in self.sources:
            try:
                staged = source(want.sha256, self.store.temporary_file())
            except (BlobMissing, BlobDamaged) as error:
                seen.append(str(error))
                continue
            except BlobArchived:
                seen.append("an archive has it and was asked for it: run this again in some hours")
                continue
            except (StorageFull, BlobUnreachable, OSError) as error:
                return error
            if want.blob is None or _stored(staged) == want.blob:
                return staged
            self.store.discard([staged])
            seen.append("its content is right, its stored form is not the recorded one")
        return "; ".join(seen)


def _stored(staged: StagedBlob) -> StoredBlob:
    return StoredBlob(staged.sha256, staged.size_bytes, staged.stored_bytes, staged.stored_crc32)


def restore_documents(copy: Path, target: Path, result: RestoredBlobs) -> None:
    """Copy `refs/` back. Raises BlobRestoreError."""
    source = Layout(copy)
    copied = Mirrored(source=str(copy), target=str(target))
    try:
        with closing(BlobStore(target)) as staging:
            staging.prepare()
            back = Mirror(source, Layout(target), staging, MirrorOptions())
            back.mirror_refs([project.name for project in project_refs(source)], copied)
    except (MirrorError, StorageFull, OSError) as error:
        raise BlobRestoreError(f"refs/ could not be restored to {target}: {error}") from error
    result.documents += copied.refs_copied
    result.unreadable_documents += copied.unreadable_refs


def fetch_documents(bucket: Place, target: Path, workers: int, result: RestoredBlobs, *, refetch: bool = True) -> None:
    """Fetch `refs/` back, what is missing; with `refetch` also what may have changed. Raises BlobRestoreError."""

    def fetch(key: str) -> bool | None:
        """Whether it was fetched; None when it is damaged there."""
        path = target / key
        if path.exists() and (VERSION_NAME.fullmatch(path.name) or not refetch):
            return False
        try:
            bucket.get(key, arriving := staging.temporary_file())
        except PlaceDamaged:
            return None
        if read_ref(arriving)[0] is None:
            arriving.unlink()
            return None
        make_directories(path.parent)
        arriving.replace(path)
        fsync(path.parent)
        return True

    try:
        with closing(BlobStore(target)) as staging, ThreadPoolExecutor(workers) as pool:
            staging.prepare()
            keys = (listed.key for listed in bucket.list("refs/"))
            while batch := list(islice(keys, BATCH_OBJECTS)):
                for key, fetched in zip(batch, pool.map(fetch, batch), strict=True):
                    if fetched is None:
                        result.unreadable_documents.append(key.removeprefix("refs/"))
                    else:
                        result.documents += fetched
    except (PlaceError, OSError) as error:
        raise BlobRestoreError(f"refs/ could not be fetched to {target}: {error}. A second run goes on.") from error
