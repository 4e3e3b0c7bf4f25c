"""What lies in a copy of the store, by directory: names and sizes, nothing is read."""

import os
from collections.abc import Iterator
from pathlib import Path

from depot_api.blobstore.layout import Layout

OBJECT_SUFFIX = ".bin.gz"
SHA256_DIGITS = 64
OBJECT_NAME_LENGTH = SHA256_DIGITS + len(OBJECT_SUFFIX)
PREFIXES = [f"{prefix:02x}" for prefix in range(256)]


class CopyUnreachable(Exception):
    """A copy of the store cannot be listed; the message says which and what to do."""


def require_store(root: Path) -> Layout:
    """The copy at `root`. Raises CopyUnreachable: a disk that is not mounted must not look like an empty store."""
    layout = Layout(root)
    if not layout.objects.is_dir():
        raise CopyUnreachable(
            f"{layout.objects} is not there. Mount the disk, or name the store's root: the directory above objects/."
        )
    return layout


def list_objects(layout: Layout, prefix: str) -> dict[str, os.stat_result]:
    """The objects whose hash begins with these two digits, by hash. The innermost loop over millions: no frills."""
    found = {}
    for entry in scan(layout.objects / prefix):
        name = entry.name
        if len(name) == OBJECT_NAME_LENGTH and name.endswith(OBJECT_SUFFIX):
            try:
                found[name[:SHA256_DIGITS]] = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # removed since the directory was read
    return found


def project_refs(layout: Layout) -> list[Path]:
    """The directories of `refs/`, one for each project."""
    return [Path(entry.path) for entry in scan(layout.refs)]


def scan(directory: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            yield from entries
    except FileNotFoundError:
        return
