"""Writing into the user's directory: whole files only, and never outside of it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from depot_api.client.files import STATE_DIRECTORY, FileStat, current_stat, unwritable
from depot_api.client.problems import FileChanged, PathRefused


class WorkTree:
    """The files below `root`. Thread-safe for different paths."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._parts = self.root / STATE_DIRECTORY / "tmp"
        self._safe_parents: set[Path] = {self.root}

    def part(self, sha256: str) -> Path:
        """Where the content of a hash is gathered before it gets its name; survives interruptions."""
        with _writing(self._parts):
            self._parts.mkdir(parents=True, exist_ok=True)
        return self._parts / f"{sha256}.part"

    def place(self, part: Path, path: str, expected: FileStat | None) -> FileStat:
        """Give a finished part its name, in one step, in place of the file `expected`.

        Raises FileChanged when something else lies there by now, PathRefused for a path that leads out.
        """
        target = self.locate(path)
        with _writing(target):
            self._make_parents(target.parent)
            _must_still_be(target, expected)
            part.replace(target)
            return FileStat.of(target.lstat())

    def copy(self, source: str, part: Path) -> None:
        """Fill a part with the content of a file of the tree."""
        with _writing(part):
            shutil.copyfile(self.locate(source), part, follow_symlinks=False)

    def remove(self, path: str, expected: FileStat | None) -> None:
        """Delete a file that is as `expected`, and the directories that it leaves empty."""
        target = self.locate(path)
        with _writing(target):
            _must_still_be(target, expected)
            target.unlink(missing_ok=True)
        self._drop_empty(target)

    def _drop_empty(self, gone: Path) -> None:
        self._safe_parents = {self.root}
        with suppress(OSError):  # not empty: done
            for parent in gone.relative_to(self.root).parents[:-1]:
                (self.root / parent).rmdir()

    def move(self, path: str, new_path: str) -> None:
        """Give a file another path, where nothing lies, and drop the directories that it leaves empty."""
        source, target = self.locate(path), self.locate(new_path)
        with _writing(target):
            self._make_parents(target.parent)
            _must_still_be(target, None)
            source.rename(target)
        self._drop_empty(source)

    def clean(self) -> None:
        """Drop the parts that interrupted runs left."""
        shutil.rmtree(self._parts, ignore_errors=True)

    def locate(self, path: str) -> Path:
        """The place of a depot path. Raises PathRefused when it is outside, or reached through a link."""
        parts = path.split("/")
        if path.startswith("/") or "\\" in path or "\0" in path or not {"", ".", ".."}.isdisjoint(parts):
            raise PathRefused(
                f"The depot names the path {path!r}, which is not inside the workspace. Nothing is written."
            )
        if STATE_DIRECTORY in parts:
            raise PathRefused(f"The depot names the path {path!r}, where the workspace keeps its own records.")
        target = self.root.joinpath(*parts)
        self._check_parents(target.parent)
        return target

    def _check_parents(self, parent: Path) -> None:
        if parent in self._safe_parents:
            return
        self._check_parents(parent.parent)
        if parent.is_symlink():
            raise PathRefused(
                f"{parent} is a symbolic link; writing through it could leave the workspace. "
                "Replace it with a directory, then run the command again."
            )

    def _make_parents(self, parent: Path) -> None:
        if parent in self._safe_parents:
            return
        try:
            parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise FileChanged(f"A file lies where the directory {parent} should be; it was left alone.") from error
        self._safe_parents.add(parent)


def _must_still_be(target: Path, expected: FileStat | None) -> None:
    if current_stat(target) != expected:
        raise FileChanged(f"{target} changed while the command was running; it was left alone.")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unwritable(path, error) from error
