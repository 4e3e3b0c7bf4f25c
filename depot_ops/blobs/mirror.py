"""The mirror: every object and every document of `refs/` once more below another root, verified on arrival.

Nothing is ever deleted here. What is gone from the store stays in the mirror until the collector takes it from both.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, Field

from depot_api.blobstore.copies import commit_copies, stage_copy
from depot_api.blobstore.durability import full_disk_told, sync_all, sync_path
from depot_api.blobstore.errors import BlobDamaged, BlobMissing, StorageFull
from depot_api.blobstore.layout import Layout
from depot_api.blobstore.refs import VERSION_NAME
from depot_api.blobstore.store import BlobStore
from depot_api.blobstore.writer import StagedBlob
from depot_ops.blobs.inventory import PREFIXES, CopyUnreachable, list_objects, project_refs, require_store, scan
from depot_ops.blobs.rate import RateLimit
from depot_ops.blobs.records import CatalogueUnreachable, open_records
from depot_ops.evidence import Figures, Finding, Status

# One sync of the file system makes as many copies durable; so many bytes are copied again after a kill at most.
BATCH_OBJECTS = 512
BATCH_BYTES = 256 << 20
# The file system's clock is coarse: a directory that changed just now may change again within the same tick.
SETTLED_SECONDS = 2.0
DEFAULT_WORKERS = 4
MIRROR_MARK = "mirrored-to"


class MirrorError(Exception):
    """The mirror cannot go on; the message says why and what to do."""


@dataclass(frozen=True)
class MirrorOptions:
    """How fast a mirror may be."""

    workers: int = DEFAULT_WORKERS
    bytes_per_second: int | None = None


class Damage(BaseModel):
    """An object that was found damaged, and what was seen."""

    sha256: str
    seen: str


class Mirrored(BaseModel):
    """The evidence of one pass."""

    schema_version: int = 1
    source: str
    target: str
    started_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    duration_seconds: float = 0.0
    objects_seen: int = 0
    objects_copied: int = 0
    copied_bytes: int = 0
    refs_copied: int = 0
    # The store's own copy is not what its name says: it is not copied, and a scrub repairs it.
    damaged: list[Damage] = []
    unreadable_refs: list[str] = []

    @property
    def has_copied(self) -> bool:
        return bool(self.objects_copied or self.refs_copied)

    @property
    def is_complete(self) -> bool:
        return not (self.damaged or self.unreadable_refs)


@dataclass
class Mirror:
    """One way from the store to its mirror; made by `open_mirror`. Used by one thread, works with several."""

    source: Layout
    target: Layout
    staging: BlobStore
    options: MirrorOptions
    stop: threading.Event = field(default_factory=threading.Event)
    _seen: dict[Path, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._rate = RateLimit(self.options.bytes_per_second)

    def reconcile(self, told: Callable[[int, int], None] = lambda _done, _all: None) -> Mirrored:
        """Compare everything and copy what the mirror lacks. Killed and run again, it goes on. Raises MirrorError."""
        return self._pass(PREFIXES, [project.name for project in project_refs(self.source)], told)

    def follow_once(self) -> Mirrored:
        """Copy what is new in the directories that have changed since they were last looked at. Raises MirrorError."""
        prefixes = [prefix for prefix in PREFIXES if self._has_changed(self.source.objects / prefix)]
        projects = [project.name for project in project_refs(self.source) if self._has_changed(project)]
        try:
            return self._pass(prefixes, projects, lambda _done, _all: None)
        except MirrorError:
            self._seen.clear()  # whatever was not reached is looked at again
            raise

    def _has_changed(self, directory: Path) -> bool:
        try:
            modified_ns = directory.stat().st_mtime_ns
        except FileNotFoundError:
            return False
        changed = self._seen.get(directory) != modified_ns
        if time.time_ns() - modified_ns > SETTLED_SECONDS * 1e9:
            self._seen[directory] = modified_ns
        return changed

    def _pass(self, prefixes: list[str], projects: Iterable[str], told: Callable[[int, int], None]) -> Mirrored:
        result = Mirrored(source=str(self.source.root), target=str(self.target.root))
        started = time.monotonic()
        try:
            with ThreadPoolExecutor(self.options.workers) as pool:
                for batch in _batches(self._unmirrored(prefixes, result, told)):
                    self._copy(batch, pool, result)
            self.mirror_refs(projects, result)
        except StorageFull as error:
            raise MirrorError(
                f"{self.target.root} has no room left: {error}. Make room; the next pass goes on."
            ) from None
        except OSError as error:
            raise MirrorError(f"{self.source.root} could not be mirrored to {self.target.root}: {error}") from error
        result.duration_seconds = round(time.monotonic() - started, 3)
        return result

    # Objects ------------------------------------------------------------------------------------------------------

    def _unmirrored(
        self, prefixes: list[str], result: Mirrored, told: Callable[[int, int], None]
    ) -> Iterator[tuple[str, os.stat_result]]:
        """Across prefixes: a sync costs the same for a few copies and for many."""
        for done, prefix in enumerate(prefixes):
            have = list_objects(self.source, prefix)
            result.objects_seen += len(have)
            for wanted in unmirrored(have, list_objects(self.target, prefix)):
                if self.stop.is_set():
                    return
                yield wanted
            told(done + 1, len(prefixes))

    def _copy(self, batch: list[tuple[str, os.stat_result]], pool: ThreadPoolExecutor, result: Mirrored) -> None:
        copied = list(pool.map(self._stage, batch))
        staged = [found for found in copied if isinstance(found, StagedBlob)]
        for found in copied:
            if isinstance(found, Exception):
                self.staging.discard(staged)
                raise found
        result.damaged += [found for found in copied if isinstance(found, Damage)]
        stored = commit_copies(staged, self.source, self.target, self.source)
        result.objects_copied += len(stored)
        result.copied_bytes += sum(blob.stored_bytes for blob in stored)

    def _stage(self, wanted: tuple[str, os.stat_result]) -> StagedBlob | Damage | StorageFull | OSError | None:
        """Errors are returned: one that was raised would leave the copies of the others behind."""
        sha256, listed = wanted
        self._rate.spend(listed.st_size, self.stop)
        if self.stop.is_set():
            return None
        try:
            return stage_copy(self.source, sha256, self.staging.temporary_file())
        except BlobDamaged as error:
            return Damage(sha256=sha256, seen=error.seen)
        except BlobMissing:
            return None  # removed since the directory was read
        except (StorageFull, OSError) as error:
            return error

    # refs/ --------------------------------------------------------------------------------------------------------

    def mirror_refs(self, projects: Iterable[str], result: Mirrored) -> None:
        """Copy the documents of these projects that the mirror lacks."""
        for project in projects:
            if self.stop.is_set():
                return
            names = stale_refs(self.source.refs / project, self.target.refs / project)
            for start in range(0, len(names), BATCH_OBJECTS):
                self._copy_refs(project, names[start : start + BATCH_OBJECTS], result)

    def _copy_refs(self, project: str, names: list[str], result: Mirrored) -> None:
        source, target = self.source.refs / project, self.target.refs / project
        staged: list[tuple[Path, Path]] = []
        with full_disk_told():
            if not target.is_dir():
                target.mkdir(parents=True)
                sync_path(target.parent)
            for name in names:
                content, modified_ns = read_ref(source / name)
                if content is None:
                    result.unreadable_refs.append(f"{project}/{name}")
                    continue
                temporary = self.staging.temporary_file()
                temporary.write_bytes(content)
                os.utime(temporary, ns=(modified_ns, modified_ns))
                staged.append((temporary, target / name))
            sync_all([temporary for temporary, _ in staged], self.target.root)
            for temporary, final in staged:
                temporary.replace(final)
            sync_all([target], self.target.root)
        result.refs_copied += len(staged)


def unmirrored(
    have: dict[str, os.stat_result], mirrored: dict[str, os.stat_result]
) -> list[tuple[str, os.stat_result]]:
    """What the mirror lacks, or has in another size."""
    return [
        (sha256, listed)
        for sha256, listed in have.items()
        if (copy := mirrored.get(sha256)) is None or copy.st_size != listed.st_size
    ]


def _batches(wanted: Iterable[tuple[str, os.stat_result]]) -> Iterator[list[tuple[str, os.stat_result]]]:
    batch: list[tuple[str, os.stat_result]] = []
    size_bytes = 0
    for sha256, listed in wanted:
        batch.append((sha256, listed))
        size_bytes += listed.st_size
        if len(batch) >= BATCH_OBJECTS or size_bytes >= BATCH_BYTES:
            yield batch
            batch, size_bytes = [], 0
    if batch:
        yield batch


def stale_refs(source: Path, target: Path) -> list[str]:
    """Documents that the mirror lacks. Versions never change; the others are compared by size and time."""
    had = {entry.name for entry in scan(target)}
    stale = []
    for entry in scan(source):
        if entry.name not in had or (
            not VERSION_NAME.fullmatch(entry.name) and _looks_different(Path(entry.path), target / entry.name)
        ):
            stale.append(entry.name)
    return sorted(stale)


def _looks_different(one: Path, other: Path) -> bool:
    a, b = one.stat(), other.stat()
    return (a.st_size, a.st_mtime_ns) != (b.st_size, b.st_mtime_ns)


def read_ref(path: Path) -> tuple[bytes | None, int]:
    """The document and its time; None when it cannot be read as JSON: a damaged one must not replace a good one."""
    try:
        modified_ns = path.stat().st_mtime_ns  # before reading: what is replaced meanwhile is copied again
        content = path.read_bytes()
        json.loads(content)
    except (OSError, ValueError):
        return None, 0
    return content, modified_ns


@contextmanager
def open_mirror(
    source: Path, target: Path, options: MirrorOptions | None = None, stop: threading.Event | None = None
) -> Iterator[Mirror]:
    """From the store at `source` to `target`, which is made where it is empty. Raises CopyUnreachable."""
    layout = require_store(source)
    if target.resolve() == source.resolve():
        raise CopyUnreachable(f"{target} is the store itself. Name another disk in ASSET_STORAGE_REPLICA_PATH.")
    _refuse_unmounted(source, target)
    target.mkdir(parents=True, exist_ok=True)
    staging = BlobStore(target)
    staging.prepare()
    if not (source / MIRROR_MARK).exists():
        (source / MIRROR_MARK).write_text(f"{target.resolve()}\n")
    try:
        yield Mirror(layout, Layout(target), staging, options or MirrorOptions(), stop or threading.Event())
    finally:
        staging.close()


def _refuse_unmounted(source: Path, target: Path) -> None:
    """A mirror whose disk is not mounted would be made anew on the disk below."""
    mark = source / MIRROR_MARK
    known = mark.read_text().strip() if mark.exists() else None
    if known == str(target.resolve()) and not (target / "objects").is_dir():
        raise CopyUnreachable(
            f"{target} was this store's mirror and is empty now. Mount its disk; to make it anew, remove {mark}."
        )


# Checks -----------------------------------------------------------------------------------------------------------


def check_lag(source: Path, target: Path, max_lag_seconds: float) -> Finding:
    """How far the mirror is behind the store: objects, bytes, and the age of the oldest that waits."""
    try:
        have, mirrored = require_store(source), require_store(target)
        objects = size_bytes = refs = 0
        oldest_ns: int | None = None
        for prefix in PREFIXES:
            for _, listed in unmirrored(list_objects(have, prefix), list_objects(mirrored, prefix)):
                objects += 1
                size_bytes += listed.st_size
                oldest_ns = min(oldest_ns or listed.st_mtime_ns, listed.st_mtime_ns)
        for project in project_refs(have):
            for name in stale_refs(project, mirrored.refs / project.name):
                refs += 1
                modified_ns = (project / name).stat().st_mtime_ns
                oldest_ns = min(oldest_ns or modified_ns, modified_ns)
    except (CopyUnreachable, OSError) as error:
        return Finding(check="mirror_lag", status=Status.UNKNOWN, detail=str(error))
    lag_seconds = max(0.0, round(time.time() - oldest_ns / 1e9, 1)) if oldest_ns is not None else 0.0
    detail = f"{objects:,} objects of {size_bytes:,} bytes and {refs:,} documents wait, the oldest {lag_seconds} s"
    status = Status.HEALTHY if lag_seconds <= max_lag_seconds else Status.UNHEALTHY
    if status is Status.UNHEALTHY:
        detail += f"; more than {max_lag_seconds:.0f} s. Is `depot-ops blobs mirror --follow` running?"
    figures = {
        "objects": objects,
        "size_bytes": size_bytes,
        "documents": refs,
        "oldest_unmirrored_seconds": lag_seconds,
    }
    return Finding(check="mirror_lag", status=status, detail=detail, figures=figures)


def check_complete(target: Path, database_url: str, max_lag_seconds: float) -> Finding:
    """Is every object that the catalogue refers to in the mirror, in its recorded size?

    What was written less than `max_lag_seconds` ago may still be on its way.
    """
    settled = datetime.now(UTC) - timedelta(seconds=max_lag_seconds)
    missing: list[str] = []
    objects = size_bytes = 0
    try:
        mirrored = require_store(target)
        with open_records(database_url) as records:
            for prefix in PREFIXES:
                there = list_objects(mirrored, prefix)
                absent = []
                for sha256, recorded in records.of_prefix(prefix).items():
                    copy = there.get(sha256)
                    if copy is not None and copy.st_size == recorded.blob.stored_bytes:
                        objects += 1
                        size_bytes += copy.st_size
                    elif recorded.written_at < settled:
                        absent.append(sha256)
                missing += sorted(records.of(absent))
    except (CopyUnreachable, CatalogueUnreachable, OSError) as error:
        return Finding(check="mirror_complete", status=Status.UNKNOWN, detail=str(error))
    figures: Figures = {"objects": objects, "size_bytes": size_bytes, "missing_objects": len(missing)}
    if not missing:
        detail = f"{objects:,} objects of {size_bytes:,} bytes, every one that the catalogue refers to"
        return Finding(check="mirror_complete", status=Status.HEALTHY, detail=detail, figures=figures)
    detail = (
        f"{len(missing):,} objects are missing or have another size, first {missing[0]}. Run `depot-ops blobs mirror`."
    )
    return Finding(check="mirror_complete", status=Status.UNHEALTHY, detail=detail, figures=figures)
