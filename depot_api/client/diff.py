"""How files of a workspace differ from what it has, with the lines of text files."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import unified_diff
from io import StringIO
from pathlib import Path
from threading import Event

from depot_api.client.depot import FETCH_LIMIT, DepotClient
from depot_api.client.download import PACK_BYTES, SMALL_BYTES, Downloader, by_content
from depot_api.client.files import FileStat, read_chunks
from depot_api.client.hashing import current_hashes
from depot_api.client.models import Action, Item, Version
from depot_api.client.opened import chosen_paths
from depot_api.client.parallel import in_groups
from depot_api.client.plan import plan_submit
from depot_api.client.progress import Progress, Silent
from depot_api.client.scan import scan
from depot_api.client.tree import WorkTree
from depot_api.client.workspace import open_existing

TEXT_BYTES = SMALL_BYTES  # larger files are compared by hash alone: nobody reads a longer difference
NO_NEWLINE = "\n\\ No newline at end of file\n"  # as patch(1) wants it


@dataclass(frozen=True, slots=True)
class LocalFile:
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class FileDifference:
    """What the workspace `had`, None for an added file; what is there `now`, None for a deleted one.

    `text` is a unified diff; None when a side is no text, or larger than TEXT_BYTES.
    """

    path: str
    action: Action
    had: Version | None
    now: LocalFile | None
    text: str | None


def local_differences(
    depot: DepotClient, root: Path, paths: Collection[str] = (), progress: Progress | None = None
) -> Iterator[FileDifference]:
    """Compare files at or below `paths` (all when empty) with what the workspace has, in path order.

    Raises WorkspaceError, ProblemError, DamagedContent, LocalFileError.
    """
    progress = progress or Silent()
    with open_existing(root) as (workspace, target):
        have, found = workspace.have(), scan(root).files
        chosen = set(chosen_paths(paths, found.keys() | have.keys(), "is not in the workspace"))
        local = current_hashes(workspace, found, found.keys() & chosen, progress)
        had = {path: version for path, version in have.items() if path in chosen}
        downloader = Downloader(depot, target.project_id, WorkTree(root), progress)
        items = plan_submit(local, had, delete_missing=True)
        for group in in_groups(items, lambda item: _bytes_to_compare(item, have, found), PACK_BYTES, FETCH_LIMIT):
            yield from _Group(downloader, root, have, found).differences(group)


@dataclass(frozen=True, slots=True)
class _Group:
    """Changes whose contents are compared together: fetched in one request, held in memory."""

    downloader: Downloader
    root: Path
    have: Mapping[str, Version]
    found: Mapping[str, FileStat]

    def differences(self, items: list[Item]) -> Iterator[FileDifference]:
        now = {item.path: self._text_here(item.path) for item in items}
        comparable = [item.path for item in items if item.path in self.have and now[item.path] is not None]
        wanted = by_content([path for path in comparable if _is_small(self.have[path].size_bytes)], self.have, {})
        contents = dict(self.downloader.read(wanted))
        for item in items:
            had = self.have.get(item.path)
            before = _text(contents.get(had.sha256)) if had else ""
            after = now[item.path]
            text = None if before is None or after is None else _unified(item.path, had, before, after)
            here = LocalFile(item.sha256, self.found[item.path].size_bytes) if item.sha256 else None
            yield FileDifference(item.path, item.action, had, here, text)

    def _text_here(self, path: str) -> str | None:
        stat = self.found.get(path)
        if stat is None:
            return ""
        if not _is_small(stat.size_bytes):
            return None
        return _text(b"".join(map(bytes, read_chunks(self.root / path, stat, Event()))))


def _bytes_to_compare(item: Item, have: Mapping[str, Version], found: Mapping[str, FileStat]) -> int:
    sizes = [side[item.path].size_bytes for side in (have, found) if item.path in side]
    return sum(filter(_is_small, sizes))


def _is_small(size_bytes: int) -> bool:
    return size_bytes <= TEXT_BYTES


def _text(content: bytes | None) -> str | None:
    """None for what is no text, or was not fetched."""
    if content is None or b"\0" in content:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None


def _unified(path: str, had: Version | None, before: str, after: str) -> str:
    old_name = f"{path}#{had.version}" if had else path
    lines = unified_diff(_lines(before), _lines(after), old_name, path)
    return "".join(line if line.endswith("\n") else line + NO_NEWLINE for line in lines)


def _lines(text: str) -> list[str]:
    """Split at line feeds only: other separators are content."""
    return list(StringIO(text, newline="\n"))
