"""Objects from one copy of the store to another: the mirror's way, and back when an object has to be healed.

Whoever removes content for good takes it out of every copy while it holds the removal lock. Whoever copies looks, under
the same lock, that the source is still there before the copy gets its name: nothing that was removed comes back.
"""

import fcntl
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from depot_api.blobstore.durability import full_disk_told, start_writeback, sync_all, sync_path
from depot_api.blobstore.examine import StoredHasher
from depot_api.blobstore.layout import Layout, StoredBlob
from depot_api.blobstore.reader import file_chunks
from depot_api.blobstore.writer import WRITEBACK_BYTES, StagedBlob

REMOVAL_LOCK = "removal.lock"
REMOVAL_GATE = "removal.gate"


def stage_copy(source: Layout, sha256: str, temporary: Path) -> StagedBlob:
    """Copy an object's stored form to `temporary`, hashing what arrives.

    Raises BlobMissing, and BlobDamaged when the source is not what its name says or cannot be read; StorageFull and
    OSError are the target's. Then nothing is left.
    """
    hasher = StoredHasher(sha256)
    try:
        with full_disk_told():
            _copy(file_chunks(source.object_path(sha256), sha256), temporary, hasher)
        blob = hasher.finish()
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return StagedBlob(temporary, sha256, blob.size_bytes, blob.stored_bytes, blob.stored_crc32)


def _copy(source: Iterator[bytes], temporary: Path, hasher: StoredHasher) -> None:
    with temporary.open("xb", buffering=0) as target:
        temporary.chmod(0o640)
        unsynced_bytes = 0
        for chunk in source:
            hasher.feed(chunk)
            written = target.write(chunk)
            while written < len(chunk):  # as on the last free block of a disk
                written += target.write(chunk[written:])
            unsynced_bytes += len(chunk)
            if unsynced_bytes >= WRITEBACK_BYTES:
                start_writeback(target.fileno())
                unsynced_bytes = 0


def commit_copies(
    staged: Sequence[StagedBlob], source: Layout, target: Layout, primary: Layout, *, quarantine: bool = False
) -> list[StoredBlob]:
    """Give staged copies their names. When this returns, those that it returns are durable.

    One whose source was removed meanwhile is dropped. With `quarantine` what lay under a name before is kept aside.
    Data first, then names, then the directories that hold the names.
    """
    paths = {blob.sha256: target.object_path(blob.sha256) for blob in staged}
    try:
        with full_disk_told():
            sync_all([blob.path for blob in staged], target.root)
            with removals_held_off(primary):
                present = [blob for blob in staged if source.object_path(blob.sha256).exists()]
                for blob in present:
                    if quarantine:
                        keep_aside(target, blob.sha256)
                    blob.path.replace(paths[blob.sha256])
            sync_all({paths[blob.sha256].parent for blob in present}, target.root)
    finally:
        for blob in staged:
            blob.path.unlink(missing_ok=True)
    return [StoredBlob(blob.sha256, blob.size_bytes, blob.stored_bytes, blob.stored_crc32) for blob in present]


def keep_aside(layout: Layout, sha256: str) -> Path | None:
    """Link what lies under an object's name into the quarantine, for diagnosis. None when nothing lies there."""
    directory = layout.quarantine / sha256
    directory.mkdir(parents=True, exist_ok=True)
    kept = directory / f"{uuid.uuid4().hex}.bin.gz"
    try:
        os.link(layout.object_path(sha256), kept)
    except FileNotFoundError:
        return None
    sync_path(directory)
    return kept


@contextmanager
def removals_held_off(primary: Layout) -> Iterator[None]:
    """Nothing is removed for good while this is held; any number of copies may be going on. Not to be nested.

    None begins while a removal waits: it would wait for ever behind copies that take turns.
    """
    with ExitStack() as held:
        with _locked(primary.root / REMOVAL_GATE, fcntl.LOCK_SH):
            held.enter_context(_locked(primary.root / REMOVAL_LOCK, fcntl.LOCK_SH))
        yield


@contextmanager
def removing(primary: Layout) -> Iterator[None]:
    """No copy gets its name while this is held."""
    with _locked(primary.root / REMOVAL_GATE, fcntl.LOCK_EX), _locked(primary.root / REMOVAL_LOCK, fcntl.LOCK_EX):
        yield


@contextmanager
def _locked(path: Path, kind: int) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)
    try:
        fcntl.flock(descriptor, kind)
        yield
    finally:
        os.close(descriptor)
