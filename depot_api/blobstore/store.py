"""The store: staging, group commit, reading."""

import fcntl
import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path

from depot_api.blobstore.durability import full_disk_told, sync_all, sync_path
from depot_api.blobstore.layout import Layout, StoredBlob
from depot_api.blobstore.reader import BlobReader
from depot_api.blobstore.refs import Ref, write_refs
from depot_api.blobstore.writer import BlobWriter, StagedBlob

LOCK_NAME = "lock"
PROBE_BYTES = 4096


class BlobStore:
    """Objects below one root. Thread-safe; any number of processes may share the root."""

    def __init__(self, root: Path) -> None:
        self._layout = Layout(root)
        self._session: Path | None = None
        self._session_lock: int | None = None

    def prepare(self) -> int:
        """Make the directories and take away what dead writers left. Returns how many of those there were.

        A writer's session is alive while its lock file is locked, which ends with its process however that dies.
        """
        for directory in (self._layout.temporary, *self._layout.prefixes()):
            directory.mkdir(parents=True, exist_ok=True)
        sync_path(self._layout.objects)
        removed = sum(_remove_if_dead(session) for session in self._layout.temporary.iterdir())
        session = self._layout.temporary / uuid.uuid4().hex
        session.mkdir()
        self._session_lock = os.open(session / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._session_lock, fcntl.LOCK_EX)
        self._session = session
        return removed

    def close(self) -> None:
        """End the session: what is staged and not committed is gone."""
        if self._session is not None and self._session_lock is not None:
            shutil.rmtree(self._session)
            os.close(self._session_lock)
            self._session = self._session_lock = None

    def writer(self, expected_sha256: str | None = None) -> BlobWriter:
        """Raises StorageFull."""
        return BlobWriter(self._temporary_file(), expected_sha256)

    def _temporary_file(self) -> Path:
        if self._session is None:
            raise RuntimeError("BlobStore.prepare() comes before writing")
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

    def remove(self, sha256: str) -> None:
        """Take an object away. Only for content that no record refers to; gone already is fine."""
        path = self._layout.object_path(sha256)
        if path.parent.is_dir():
            path.unlink(missing_ok=True)
            sync_path(path.parent)

    def write_refs(self, refs: Sequence[Ref]) -> None:
        """Make these documents durable below refs/. Raises StorageFull."""
        write_refs(self._layout.refs, refs, self._temporary_file)

    def is_intact(self, blob: StoredBlob) -> bool:
        """Cheap: there, with exactly the recorded size. What only a hash can tell is told when it is read."""
        try:
            return self._layout.object_path(blob.sha256).stat().st_size == blob.stored_bytes
        except FileNotFoundError:
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
        path = self._temporary_file()
        try:
            with full_disk_told():
                path.write_bytes(bytes(PROBE_BYTES))
                sync_path(path)
        finally:
            path.unlink(missing_ok=True)


def _remove_if_dead(session: Path) -> bool:
    try:
        descriptor = os.open(session / LOCK_NAME, os.O_RDWR)
    except FileNotFoundError:
        # Between its mkdir and its lock file, or already going away: a session without one is never old.
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    shutil.rmtree(session, ignore_errors=True)
    return True
