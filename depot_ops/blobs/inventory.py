"""What lies in a copy of the store, by directory: names and sizes, nothing is read."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from depot_api.blobstore.layout import Layout

OBJECT_SUFFIX = ".bin.gz"
SHA256_DIGITS = 64
PREFIXES = [f"{prefix:02x}" for prefix in range(256)]


class CopyUnreachable(Exception):
    """A copy of the store cannot be listed; the message says which and what to do."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A file as its directory shows it."""

    size_bytes: int
    modified_ns: int


def require_store(root: Path) -> Layout:
    """The copy at `root`. Raises CopyUnreachable: a disk that is not mounted must not look like an empty store."""
    layout = Layout(root)
    if not layout.objects.is_dir():
        raise CopyUnreachable(
            f"{layout.objects} is not there. Mount the disk, or name the store's root: the directory above objects/."
        )
    return layout


def list_objects(layout: Layout, prefix: str) -> dict[str, Listed]:
    """The objects whose hash begins with these two digits, by hash."""
    found = {}
    for name, listed in list_files(layout.objects / prefix).items():
        sha256 = name.removesuffix(OBJECT_SUFFIX)
        if len(sha256) == SHA256_DIGITS and sha256 != name and sha256.startswith(prefix):
            found[sha256] = listed
    return found


def list_files(directory: Path) -> dict[str, Listed]:
    """The files in `directory` by name; none when it is not there."""
    found = {}
    for entry in scan(directory):
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue  # removed since the directory was read
        found[entry.name] = Listed(status.st_size, status.st_mtime_ns)
    return found


def scan(directory: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            yield from entries
    except FileNotFoundError:
        return
