"""What lies in a directory tree."""

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from depot_api.client.files import STATE_DIRECTORY, FileStat, unreadable
from depot_api.client.problems import LocalFileError


@dataclass(frozen=True, slots=True)
class Skipped:
    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Scan:
    """Regular files by path relative to the root, with `/`, and what was left out."""

    files: dict[str, FileStat] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)


def scan(root: Path) -> Scan:
    """Look at every file below `root`, following no symbolic link and reading no content.

    Raises LocalFileError when a directory cannot be listed or a file is not readable.
    """
    if not root.is_dir():
        raise LocalFileError(f"{root} is not a directory. Name the directory that holds the files.")
    found = Scan()
    waiting = [(str(root), "")]
    while waiting:
        directory, prefix = waiting.pop()
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    path = prefix + entry.name
                    if entry.is_dir(follow_symlinks=False):
                        if entry.name != STATE_DIRECTORY:
                            waiting.append((entry.path, path + "/"))
                    else:
                        _look_at(entry, path, found)
        except OSError as error:
            raise unreadable(Path(directory), error) from error
    return found


def _look_at(entry: os.DirEntry[str], path: str, found: Scan) -> None:
    result = entry.stat(follow_symlinks=False)
    if stat.S_ISLNK(result.st_mode):
        found.skipped.append(Skipped(path, "symbolic link"))
        return
    if not stat.S_ISREG(result.st_mode):
        found.skipped.append(Skipped(path, "not a regular file"))
        return
    if not os.access(entry.path, os.R_OK):
        raise LocalFileError(f"{entry.path} cannot be read: permission denied. Nothing was sent.")
    found.files[path] = FileStat.of(result)
