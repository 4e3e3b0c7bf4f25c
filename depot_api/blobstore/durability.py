"""Making files durable, one by one or all at once, and telling a full disk from other trouble."""

import ctypes
import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from depot_api.blobstore.errors import StorageFull

# Up to this many, each file's own fsync is cheaper than syncfs, which waits for everything else on the file system.
FEW_FILES = 8
SYNC_FILE_RANGE_WRITE = 2

# syncfs and sync_file_range are Linux's; elsewhere every file is fsynced, and writeback starts when the system likes.
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def full_disk_told() -> Iterator[None]:
    """Turns ENOSPC and EDQUOT into StorageFull."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(f"no room: {error.strerror}") from error
        raise


def sync_path(path: Path) -> None:
    """fsync a file or a directory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_all(paths: Iterable[Path], root: Path) -> None:
    """Make all of `paths`, which lie on the file system of `root`, durable."""
    paths = list(paths)
    if len(paths) > FEW_FILES and hasattr(_libc, "syncfs"):
        _sync_file_system(root)
        return
    for path in paths:
        sync_path(path)


def _sync_file_system(root: Path) -> None:
    """syncfs(2): reports write-back errors since Linux 5.8."""
    descriptor = os.open(root, os.O_RDONLY)
    try:
        if _libc.syncfs(descriptor) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(root))
    finally:
        os.close(descriptor)


def start_writeback(descriptor: int) -> None:
    """Tell the system to begin writing what is dirty, without waiting: the final sync is then short. Only a hint."""
    if hasattr(_libc, "sync_file_range"):
        _libc.sync_file_range(descriptor, ctypes.c_int64(0), ctypes.c_int64(0), SYNC_FILE_RANGE_WRITE)
