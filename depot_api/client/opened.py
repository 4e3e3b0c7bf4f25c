"""Opened files: what the user means to add, edit or delete, and what takes that back."""

import os
from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from depot_api.client.depot import DepotClient
from depot_api.client.download import Downloader, by_content
from depot_api.client.files import FileStat, current_stat
from depot_api.client.hashing import current_hashes
from depot_api.client.models import Action, Version
from depot_api.client.plan import plan_submit
from depot_api.client.problems import WorkspaceError
from depot_api.client.progress import Progress, Silent
from depot_api.client.scan import scan
from depot_api.client.submit import check_paths
from depot_api.client.tree import WorkTree
from depot_api.client.workspace import Target, Workspace, open_existing

AFTER_SLASH = chr(ord("/") + 1)
LISTED_PATHS = 20  # of a long list of refused paths; the rest is counted


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """A path, what it is opened for, and the version that the workspace has; None for one that is new."""

    path: str
    action: Action
    base_version: int | None


def opened_files(workspace: Workspace) -> list[OpenedFile]:
    """In path order."""
    return _as_files(workspace.opened(), workspace.have())


def _as_files(opened: Mapping[str, Action], have: Mapping[str, Version]) -> list[OpenedFile]:
    return [OpenedFile(path, action, have[path].version if path in have else None) for path, action in opened.items()]


def open_changed(
    root: Path, paths: Collection[str], *, dry_run: bool = False, progress: Progress | None = None
) -> list[OpenedFile]:
    """Open what differs at or below `paths` from what the workspace has, for what it is.

    Returns what was opened now, or would be with `dry_run`. Raises WorkspaceError, PathRefused, LocalFileError.
    """
    with open_existing(root) as (workspace, _):
        have, opened, found = workspace.have(), workspace.opened(), scan(root).files
        chosen = set(chosen_paths(paths, found.keys() | have.keys() | opened.keys(), "is not in the workspace"))
        local = current_hashes(workspace, found, found.keys() & chosen, progress or Silent())
        had = {path: version for path, version in have.items() if path in chosen}
        actions = {item.path: item.action for item in plan_submit(local, had, delete_missing=True)}
        changed = {path: action for path, action in actions.items() if opened.get(path) is not action}
        check_paths([path for path in changed if path not in have], chain(found, have))
        if not dry_run:
            workspace.open_files(changed)
        return _as_files(changed, have)


def open_for_edit(root: Path, paths: Collection[str]) -> list[OpenedFile]:
    """Open files that the workspace has, all or none. Raises WorkspaceError."""
    with open_existing(root) as (workspace, _):
        have, opened = workspace.have(), workspace.opened()
        chosen = chosen_paths(paths, have, "did not come from the depot; `depot add` opens new files")
        _refuse(
            f"{path} is opened for delete; `depot revert` brings it back first"
            for path in chosen
            if opened.get(path) is Action.DELETE
        )
        return _open(workspace, chosen, Action.EDIT)


def open_for_add(root: Path, paths: Collection[str]) -> list[OpenedFile]:
    """Open files that the depot does not have yet, all or none. Raises WorkspaceError, PathRefused."""
    with open_existing(root) as (workspace, _):
        have = workspace.have()
        _refuse(f"{path} came from the depot; `depot edit` opens it" for path in paths if path in have)
        files = {path for named in paths for path in _files_at(root, named)}
        chosen = chosen_paths(paths, files - have.keys(), "is no new file, and holds none")
        check_paths(chosen, chain(chosen, have, workspace.opened()))
        return _open(workspace, chosen, Action.ADD)


def open_for_delete(root: Path, paths: Collection[str], progress: Progress | None = None) -> list[OpenedFile]:
    """Open files that the workspace has, and delete them here; all or none. Changed files are refused.

    Raises WorkspaceError, LocalFileError.
    """
    with open_existing(root) as (workspace, _):
        have, opened = workspace.have(), workspace.opened()
        chosen = chosen_paths(paths, have, "did not come from the depot")
        _refuse(
            f"{path} is opened for {opened[path]}; `depot revert` it first"
            for path in chosen
            if opened.get(path, Action.DELETE) is not Action.DELETE
        )
        files = _regular_files(root, chosen)
        local = current_hashes(workspace, files, chosen, progress or Silent())
        _refuse(
            f"{path} was changed here, which would be lost; `depot open` it and `depot revert` it first"
            for path, sha256 in local.items()
            if sha256 != have[path].sha256
        )
        # First the record: cut off in between, the files that are still there are told by the next submit.
        deleted = _open(workspace, chosen, Action.DELETE)
        tree = WorkTree(root)
        for path in chosen:
            tree.remove(path, files.get(path))
        return deleted


@dataclass(frozen=True, slots=True)
class MovedFile:
    """A file's new path, and the one that the depot knows it by."""

    path: str
    moved_from: str


def move(root: Path, path: str, new_path: str) -> list[MovedFile]:
    """Give a file, or all files of a directory, another path here, and open it for that; all or none.

    A file may be changed besides. Raises WorkspaceError, PathRefused, LocalFileError.
    """
    with open_existing(root) as (workspace, _):
        have, opened, moved = workspace.have(), workspace.opened(), workspace.moved()
        there = [one for one in have.keys() | moved.keys() if opened.get(one) is not Action.DELETE]
        chosen = chosen_paths([path], there, "did not come from the depot: rename it yourself, then `depot add` it")
        if not path or f"{new_path}/".startswith(f"{path}/"):
            raise WorkspaceError(f"{path or 'The workspace'} cannot be moved into itself.")
        names = {one: new_path + one.removeprefix(path) for one in chosen}
        files = _regular_files(root, chosen)
        _refuse(f"{one} is not there any more" for one in chosen if one not in files)
        _refuse(f"{name} is there already" for name in names.values() if os.path.lexists(root / name))
        check_paths(names.values(), chain(names.values(), have.keys() - names.values(), opened.keys() - moved.keys()))
        origins = {name: moved.get(one, one) for one, name in names.items()}
        # First the record: cut off in between, the next submit tells what is not as it was opened.
        workspace.open_moved(origins, moved.keys() & names.keys())
        tree = WorkTree(root)
        for one, name in names.items():
            tree.move(one, name)
        return [MovedFile(name, origin) for name, origin in origins.items()]


@dataclass(slots=True)
class RevertResult:
    """Files that are not opened any more, and paths that are, because they changed meanwhile."""

    reverted: list[OpenedFile] = field(default_factory=list)
    restored: int = 0
    fetched_bytes: int = 0
    changed: list[str] = field(default_factory=list)


def revert(
    depot: DepotClient,
    root: Path,
    paths: Collection[str],
    *,
    only_unchanged: bool = False,
    progress: Progress | None = None,
) -> RevertResult:
    """Close opened files at or below `paths` (all when empty), and restore what the workspace had.

    A file opened for add stays where it is. With `only_unchanged` no content is touched: closed are files that are
    as they came from the depot, and files opened for add that are gone.

    Raises WorkspaceError, ProblemError, DamagedContent, LocalFileError.
    """
    progress = progress or Silent()
    with open_existing(root) as (workspace, target):
        have, opened = workspace.have(), workspace.opened()
        chosen = chosen_paths(paths, opened, "is not opened; `depot open` opens what changed")
        files = _regular_files(root, chosen)
        local = current_hashes(workspace, files, chosen, progress)
        wanted = {path: have[path].sha256 if path in have else None for path in chosen}
        same = [path for path in chosen if local.get(path) == wanted[path]]
        if only_unchanged:
            closed, restore = same, []
        else:
            restore = [path for path in chosen if path in have and path not in set(same)]
            closed = [path for path in chosen if path not in set(restore)]
        workspace.close_files(closed)
        result = RevertResult()
        restored = _restore(depot, workspace, target, restore, progress, result)
        gone = restored.union(closed)
        result.reverted = _as_files({path: opened[path] for path in chosen if path in gone}, have)
        return result


def _restore(
    depot: DepotClient,
    workspace: Workspace,
    target: Target,
    paths: Collection[str],
    progress: Progress,
    result: RevertResult,
) -> set[str]:
    """Put the depot's content back; each file is closed when it is in place."""
    if not paths:
        return set()
    tree = WorkTree(workspace.root)
    lies = {path: found for path in paths if (found := current_stat(tree.locate(path)))}
    restored: set[str] = set()
    downloader = Downloader(depot, target.project_id, tree, progress)
    for done in downloader.download(by_content(paths, workspace.have(), lies)):
        workspace.close_files(done.placed)
        restored.update(done.placed)
        result.fetched_bytes += done.fetched_bytes
        result.changed += done.changed
    tree.clean()
    result.restored = len(restored)
    return restored


def _open(workspace: Workspace, paths: Iterable[str], action: Action) -> list[OpenedFile]:
    actions = dict.fromkeys(paths, action)
    workspace.open_files(actions)
    return _as_files(actions, workspace.have())


def chosen_paths(paths: Collection[str], candidates: Iterable[str], what_else: str) -> list[str]:
    """The candidates at or below `paths`, all of them when none is named; each path has to name one."""
    by_path = sorted(candidates)
    if not paths:
        return by_path
    chosen: set[str] = set()
    nothing: list[str] = []
    for named in paths:
        found = at_or_below(by_path, named)
        chosen.update(found)
        if not found:
            nothing.append(named)
    _refuse(f"{named or 'The workspace'} {what_else}" for named in nothing)
    return sorted(chosen)


def at_or_below(by_path: Sequence[str], named: str) -> Sequence[str]:
    """Of sorted paths the named one, or those in the named directory; the workspace itself is named ''."""
    if not named:
        return by_path
    first = bisect_left(by_path, named)
    if by_path[first : first + 1] == [named]:
        return [named]
    return by_path[bisect_left(by_path, f"{named}/") : bisect_left(by_path, f"{named}{AFTER_SLASH}")]


def _refuse(reasons: Iterable[str]) -> None:
    all_reasons = list(reasons)
    if not all_reasons:
        return
    more = [f"… and {len(all_reasons) - LISTED_PATHS} more"] if len(all_reasons) > LISTED_PATHS else []
    raise WorkspaceError("\n".join(["Nothing was done.", *all_reasons[:LISTED_PATHS], *more]))


def _files_at(root: Path, named: str) -> Iterable[str]:
    """The regular files at or below a path."""
    place = root / named
    if place.is_dir() and not place.is_symlink():
        prefix = f"{named}/" if named else ""
        return [prefix + path for path in scan(place).files]
    return _regular_files(root, [named])


def _regular_files(root: Path, paths: Iterable[str]) -> dict[str, FileStat]:
    files = {}
    for path in paths:
        place = root / path
        found = current_stat(place)
        if found is not None and place.is_file() and not place.is_symlink():
            files[path] = found
    return files
