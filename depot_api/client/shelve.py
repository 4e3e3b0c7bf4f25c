"""Local changes of a workspace onto a shelf, and a shelf into a workspace as local changes."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from depot_api.client.depot import ITEMS_LIMIT, DepotClient
from depot_api.client.download import Downloader, Wanted
from depot_api.client.files import FileStat
from depot_api.client.hashing import current_hashes
from depot_api.client.models import Action, Item, Shelf, ShelfItem, Version
from depot_api.client.plan import Conflict, ConflictReason, plan_submit, with_moves
from depot_api.client.problems import FileChanged, WorkspaceError
from depot_api.client.progress import Progress, Silent
from depot_api.client.scan import Scan, scan
from depot_api.client.submit import check_paths
from depot_api.client.tree import WorkTree
from depot_api.client.upload import Candidate, Uploader
from depot_api.client.workspace import Workspace, open_existing


@dataclass(frozen=True, slots=True)
class ShelveResult:
    """The shelf, None when nothing had changed, and what was sent for it."""

    shelf: Shelf | None
    sent_objects: int = 0
    sent_bytes: int = 0


def shelve_tree(
    depot: DepotClient, root: Path, description: str, *, into: UUID | None = None, progress: Progress | None = None
) -> ShelveResult:
    """Shelve what a submit of the workspace would send; its files stay as they are.

    `into` is a shelf whose items are replaced. Raises ProblemError (`locked` when others hold a path), PathRefused,
    WorkspaceError, LocalFileError.
    """
    progress = progress or Silent()
    with open_existing(root) as (workspace, target):
        have, files = workspace.have(), scan(root).files
        local = current_hashes(workspace, files, files, progress)
        items = plan_submit(local, have, delete_missing=True)
        if not items:
            return ShelveResult(None)
        if len(items) > ITEMS_LIMIT:
            raise WorkspaceError(
                f"{len(items)} files changed, and a shelf is made of at most {ITEMS_LIMIT} at a time. "
                "Put them into a changelist and shelve that with --changelist."
            )
        check_paths([item.path for item in items if item.action is Action.ADD], (*files, *have))
        in_depot = frozenset(version.sha256 for version in have.values())
        uploader = Uploader(depot, target.project_id, root, in_depot, progress)
        sent_objects = sent_bytes = 0
        for uploaded in uploader.upload(_candidates(workspace, items, files)):
            workspace.remember_seen(uploaded.seen)
            local |= {path: seen.sha256 for path, seen in uploaded.seen.items()}
            sent_objects += uploaded.sent_objects
            sent_bytes += uploaded.sent_bytes
        items = with_moves(plan_submit(local, have, delete_missing=True), have, workspace.moved())
        if into is None:
            shelf = depot.create_shelf(target.project_id, target.branch_id, description, items)
        else:
            shelf = depot.replace_shelf_items(into, items)
        return ShelveResult(shelf, sent_objects, sent_bytes)


def _candidates(workspace: Workspace, items: Iterable[Item], files: Mapping[str, FileStat]) -> list[Candidate]:
    seen = workspace.seen()
    candidates = []
    for item in items:
        if item.action is not Action.DELETE:
            stat, known = files[item.path], seen.get(item.path)
            candidates.append(Candidate(item.path, stat, known if known and known.holds_for(stat) else None))
    return candidates


@dataclass(slots=True)
class UnshelveResult:
    """Files that are now as on the shelf, and paths that were left alone."""

    written: int = 0
    removed: int = 0
    unchanged: int = 0
    fetched_bytes: int = 0
    conflicts: list[Conflict] = field(default_factory=list)


@dataclass(slots=True)
class UnshelvePlan:
    """Each path of the shelf is in at most one of these."""

    write: list[str] = field(default_factory=list)
    remove: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)


def plan_unshelve(
    items: Iterable[ShelfItem], have: Mapping[str, Version], local: Mapping[str, str], *, force: bool
) -> UnshelvePlan:
    """What makes `local` (path → SHA-256) as on the shelf, `have` being what the last sync or submit left.

    Without `force` no local change is overwritten, and nothing is taken that began from another version than the
    workspace has: submitted, it would undo what others did since.
    """
    plan = UnshelvePlan()
    for path, (sha256, base_version) in _changes(items).items():
        had, lies = have.get(path), local.get(path)
        if lies == sha256:
            plan.unchanged.append(path)
        elif not force and (had.version if had else None) != base_version:
            plan.conflicts.append(Conflict(path, ConflictReason.OTHER_BASE))
        elif not force and lies != (had.sha256 if had else None):
            plan.conflicts.append(Conflict(path, ConflictReason.BOTH_CHANGED if had else ConflictReason.IN_THE_WAY))
        elif sha256 is None:
            plan.remove.append(path)
        else:
            plan.write.append(path)
    return plan


def _changes(items: Iterable[ShelfItem]) -> dict[str, tuple[str | None, int | None]]:
    """path → its content on the shelf, and the version that it began from; a move is two paths."""
    changes: dict[str, tuple[str | None, int | None]] = {}
    for item in items:
        if item.moved_from is None:
            changes[item.path] = (item.sha256, item.base_version)
        else:
            changes[item.moved_from] = (None, item.base_version)
            changes[item.path] = (item.sha256, None)
    return changes


def unshelve_tree(
    depot: DepotClient, root: Path, shelf: Shelf, *, force: bool = False, progress: Progress | None = None
) -> UnshelveResult:
    """Make a workspace's files as on the shelf; they are local changes then, for the next submit.

    What the user changed is left alone and listed in `conflicts`, unless `force`. Raises ProblemError, WorkspaceError,
    DamagedContent, LocalFileError, PathRefused.
    """
    progress = progress or Silent()
    with open_existing(root) as (workspace, target):
        if target.project_id != shelf.project_id:
            raise WorkspaceError(f"{root} has its files from project {target.project_name}, the shelf is of another.")
        items = list(depot.shelf_items(shelf.id))
        tree, found = WorkTree(root), scan(root)
        changes = _changes(items)
        for path in changes:
            tree.locate(path)  # a path that leads out is refused before anything is written
        local = current_hashes(workspace, found.files, changes, progress)
        plan = plan_unshelve(items, workspace.have(), local, force=force)
        result = UnshelveResult(unchanged=len(plan.unchanged), conflicts=plan.conflicts)
        _remove(tree, plan, found, result)
        downloader = Downloader(depot, target.project_id, tree, progress)
        wanted = _by_content(plan.write, items, found)
        for done in downloader.download(wanted) if wanted else ():
            result.written += len(done.placed)
            result.fetched_bytes += done.fetched_bytes
            result.conflicts += [Conflict(path, ConflictReason.CHANGED_MEANWHILE) for path in done.changed]
        tree.clean()
        return result


def _remove(tree: WorkTree, plan: UnshelvePlan, found: Scan, result: UnshelveResult) -> None:
    for path in plan.remove:
        try:
            tree.remove(path, found.files.get(path))
            result.removed += 1
        except FileChanged:
            result.conflicts.append(Conflict(path, ConflictReason.CHANGED_MEANWHILE))


def _by_content(paths: Iterable[str], items: Iterable[ShelfItem], found: Scan) -> list[Wanted]:
    on_shelf = {item.path: item for item in items}
    places: defaultdict[tuple[str, int], dict[str, FileStat | None]] = defaultdict(dict)
    for path in paths:
        item = on_shelf[path]
        assert item.sha256 is not None, "what is written has content"
        assert item.size_bytes is not None, "what has content has a size"
        places[item.sha256, item.size_bytes][path] = found.files.get(path)
    return [Wanted(sha256, size_bytes, where) for (sha256, size_bytes), where in places.items()]
