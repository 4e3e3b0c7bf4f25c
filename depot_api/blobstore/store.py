"""The store: staging, group commit, reading."""

import errno
import fcntl
import os
import shutil
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from depot_api.blobstore.bucket import BucketCopy
from depot_api.blobstore.copies import commit_copies, keep_aside, removals_held_off, removing, stage_copy
from depot_api.blobstore.durability import full_disk_told, sync_all, sync_path
from depot_api.blobstore.errors import BlobArchived, BlobDamaged, BlobError, BlobMissing, BlobUnreachable
from depot_api.blobstore.layout import Layout, StoredBlob
from depot_api.blobstore.reader import BlobReader
from depot_api.blobstore.refs import Ref, write_refs
from depot_api.blobstore.writer import BlobWriter, StagedBlob

LOCK_NAME = "lock"
PROBE_BYTES = 4096
# Objects that are healed at the same time; those that share a lock wait for each other.
HEALING_LOCKS = 64


class BlobStore:
    """Objects below one root. Thread-safe; any number of processes may share the root."""

    def __init__(self, root: Path, mirror: Path | None = None, bucket: BucketCopy | None = None) -> None:
        """What is damaged is healed from the `mirror`, else from the `bucket`; what is removed is removed there too."""
        self._layout = Layout(root)
        self._mirror = Layout(mirror) if mirror else None
        self._bucket = bucket
        self._healing = [threading.Lock() for _ in range(HEALING_LOCKS)]
        self._beginning = threading.Lock()
        self._session: Path | None = None
        self._session_lock: int | None = None

    def prepare(self) -> int:
        """Make the directories and take away what dead writers left. Returns how many of those there were.

        A store that is there is not written to: on a full or read-only disk it can still be read.
        """
        for directory in (self._layout.temporary, *self._layout.prefixes()):
            directory.mkdir(parents=True, exist_ok=True)
        sync_path(self._layout.objects)
        sync_path(self._layout.root)
        with self._starting():
            return sum(_remove_if_dead(session) for session in self._layout.temporary.iterdir())

    @contextmanager
    def _starting(self) -> Iterator[None]:
        """So that nobody sees a session that is not locked yet."""
        starting = os.open(self._layout.temporary, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(starting, fcntl.LOCK_EX)
            yield
        finally:
            os.close(starting)

    def _begin_session(self) -> Path:
        """A writer's session is alive while its lock file is locked, which ends with its process however that dies."""
        session = self._layout.temporary / uuid.uuid4().hex
        with full_disk_told(), self._starting():
            session.mkdir()
            try:
                self._session_lock = os.open(session / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError:
                session.rmdir()  # without its lock nobody could tell that it is dead
                raise
            fcntl.flock(self._session_lock, fcntl.LOCK_EX)
        return session

    def close(self) -> None:
        """End the session: what is staged and not committed is gone."""
        if self._session is not None and self._session_lock is not None:
            shutil.rmtree(self._session)
            os.close(self._session_lock)
            self._session = self._session_lock = None

    def writer(self, expected_sha256: str | None = None) -> BlobWriter:
        """Raises StorageFull or OSError."""
        return BlobWriter(self.temporary_file(), expected_sha256)

    def temporary_file(self) -> Path:
        """A name to stage under; what lies there goes with the session. Raises StorageFull or OSError."""
        with self._beginning:
            if self._session is None:
                self._session = self._begin_session()
        return self._session / uuid.uuid4().hex

    def commit(self, staged: Sequence[StagedBlob]) -> list[StoredBlob]:
        """Make them objects. When this returns, all of them are durable; when it raises, none is referred to.

        Data first, then names, then the directories that hold the names. Replacing heals an object that is damaged.
        """
        targets = [self._layout.object_path(blob.sha256) for blob in staged]
        try:
            with full_disk_told():
                sync_all([blob.path for blob in staged], self._layout.root)
                for blob, target in zip(staged, targets, strict=True):
                    blob.path.replace(target)
                sync_all({target.parent for target in targets}, self._layout.root)
        except BaseException:
            self.discard(staged)
            raise
        return [StoredBlob(blob.sha256, blob.size_bytes, blob.stored_bytes, blob.stored_crc32) for blob in staged]

    def discard(self, staged: Sequence[StagedBlob]) -> None:
        for blob in staged:
            blob.path.unlink(missing_ok=True)

    def remove(self, hashes: Sequence[str]) -> None:
        """Take objects away for good: here, in quarantine, in the mirror and in the bucket. Gone already is fine.

        Only for content that no record refers to. When this returns, nothing that is being copied brings it back.
        Raises BlobUnreachable when the bucket does not do it; then it is to be called again.
        """
        with removing(self._layout):
            for layout in (self._layout, self._mirror):
                if layout is not None:
                    _remove(layout, hashes)
            if self._bucket is not None:
                self._bucket.remove(hashes)

    def heal(self, blob: StoredBlob) -> bool:
        """Whether the object is whole now: it was, or another copy has it. What was damaged is kept in quarantine.

        Raises BlobArchived when it will be some hours from now, and BlobUnreachable when the bucket does not answer.
        """
        with self._healing[int(blob.sha256[:8], 16) % HEALING_LOCKS]:  # readers who find the same damage heal it once
            try:
                self.verify(blob)
            except (BlobDamaged, BlobMissing):
                return self._heal_from_mirror(blob) or self._heal_from_bucket(blob)
        return True

    def _heal_from_mirror(self, blob: StoredBlob) -> bool:
        if self._mirror is None:
            return False
        try:
            staged = stage_copy(self._mirror, blob.sha256, self.temporary_file())
            if (staged.stored_bytes, staged.stored_crc32) != (blob.stored_bytes, blob.stored_crc32):
                self.discard([staged])  # the right content in a form that the record does not promise
                return False
            return bool(commit_copies([staged], self._mirror, self._layout, self._layout, quarantine=True))
        except (BlobError, OSError):
            return False  # a mirror that is damaged or cannot be reached heals nothing

    def _heal_from_bucket(self, blob: StoredBlob) -> bool:
        try:
            return self._bucket is not None and self.fetch(blob, self._bucket, self._layout.root)
        except (BlobArchived, BlobUnreachable):
            raise
        except (BlobError, OSError):
            return False

    def fetch(self, blob: StoredBlob, bucket: BucketCopy, primary: Path) -> bool:
        """Whether the bucket has the object as recorded; then it is here, and what lay here is kept in quarantine.

        `primary` is the root of the store that this one is, or is a copy of. Raises BlobError and OSError.
        """
        staged = bucket.stage(blob.sha256, self.temporary_file())
        try:
            with removals_held_off(Layout(primary)):
                recorded = (staged.stored_bytes, staged.stored_crc32) == (blob.stored_bytes, blob.stored_crc32)
                if not (recorded and bucket.has(blob.sha256)):  # removed for good meanwhile: it must not come back
                    return False
                keep_aside(self._layout, blob.sha256)
                self.commit([staged])
        finally:
            staged.path.unlink(missing_ok=True)
        return True

    def write_refs(self, refs: Sequence[Ref]) -> None:
        """Make these documents durable below refs/. Raises StorageFull."""
        write_refs(self._layout.refs, refs, self.temporary_file)

    def is_intact(self, blob: StoredBlob) -> bool:
        """Cheap: there, with exactly the recorded size. What only a hash can tell is told when it is read."""
        try:
            return self._layout.object_path(blob.sha256).stat().st_size == blob.stored_bytes
        except OSError:  # not there, or on a disk that cannot tell
            return False

    def open(self, blob: StoredBlob) -> BlobReader:
        """Raises BlobMissing or BlobDamaged."""
        return BlobReader(self._layout.object_path(blob.sha256), blob)

    def verify(self, blob: StoredBlob) -> None:
        """Read and hash the whole object. Raises BlobMissing or BlobDamaged."""
        for _ in self.open(blob).content_chunks():
            pass

    def free_bytes(self) -> int:
        """What an unprivileged writer could still write."""
        status = os.statvfs(self._layout.root)
        return status.f_bavail * status.f_frsize

    def probe_writable(self) -> None:
        """Write, sync and remove a small file. Raises StorageFull or OSError."""
        path = self.temporary_file()
        try:
            with full_disk_told():
                path.write_bytes(bytes(PROBE_BYTES))
                sync_path(path)
        finally:
            path.unlink(missing_ok=True)


def _remove(layout: Layout, hashes: Sequence[str]) -> None:
    paths = [layout.object_path(sha256) for sha256 in hashes]
    for sha256, path in zip(hashes, paths, strict=True):
        path.unlink(missing_ok=True)
        shutil.rmtree(layout.quarantine / sha256, ignore_errors=True)
    sync_all({path.parent for path in paths if path.parent.is_dir()}, layout.root)


def _remove_if_dead(session: Path) -> bool:
    try:
        descriptor = os.open(session / LOCK_NAME, os.O_RDWR)
    except FileNotFoundError:
        return False  # it is going away
    except OSError as error:
        if error.errno == errno.EROFS:
            return False
        raise
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    shutil.rmtree(session, ignore_errors=True)
    return True
