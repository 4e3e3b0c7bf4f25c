"""A branch, as of a changelist, into a directory; and what a directory differs in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from depot_api.client.depot import DepotClient
from depot_api.client.download import Downloader, by_content
from depot_api.client.files import FileStat, current_stat, unwritable
from depot_api.client.hashing import current_hashes, hash_files
from depot_api.client.models import Branch, Item, Project, Version
from depot_api.client.opened import OpenedFile, opened_files
from depot_api.client.plan import Conflict, ConflictReason, SyncPlan, plan_submit, plan_sync, with_moves
from depot_api.client.problems import FileChanged, WorkspaceError
from depot_api.client.progress import Progress, Silent
from depot_api.client.scan import Scan, scan
from depot_api.client.tree import WorkTree
from depot_api.client.workspace import Seen, Target, Workspace, now_ns, open_existing

NOT_CONTENT = ""  # stands for the hash of what is no regular file: equal to no content's


@dataclass(slots=True)
class SyncResult:
    """What a sync did. With `conflicts` the workspace is a mixture, else it has changelist `at`."""

    at: int
    fetched: int = 0
    removed: int = 0
    unchanged: int = 0
    fetched_objects: int = 0
    fetched_bytes: int = 0
    kept: list[str] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)


def sync_tree(
    depot: DepotClient,
    root: Path,
    project: Project,
    branch: Branch,
    *,
    at: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> SyncResult:
    """Make the directory `root` (created when needed) hold the branch as of changelist `at`, its head when None.

    Files changed by the user are neither overwritten nor deleted: they are `kept`, or `conflicts` when
    the depot's version changed too. `force` takes the depot's side. An interrupted sync is gone on with.

    Raises ProblemError, WorkspaceError, DamagedContent, LocalFileError, PathRefused.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(root, error) from error
    with Workspace(root) as workspace:
        if not workspace.is_remembered:
            raise WorkspaceError(f"Nothing can be written in {root}. Make it writable or name another directory.")
        has = workspace.target
        if has is not None and has.project_id != project.id:
            raise WorkspaceError(
                f"{root} has its files from project {has.project_name}, not from {project.name}. "
                "Name another directory."
            )
        target = Target(project.id, project.name, branch.id, branch.name)
        return _Sync(depot, workspace, target, progress or Silent()).run(
            branch.head_no if at is None else at, force=force
        )


class _Sync:
    def __init__(self, depot: DepotClient, workspace: Workspace, target: Target, progress: Progress) -> None:
        self.depot = depot
        self.workspace = workspace
        self.target = target
        self.progress = progress
        self.tree = WorkTree(workspace.root)

    def run(self, at: int, *, force: bool) -> SyncResult:
        have = self.workspace.have()
        wanted = self._wanted(at, have)
        for path in wanted:
            self.tree.locate(path)  # a path that leads out is refused before anything is written
        found = scan(self.workspace.root)
        local = current_hashes(self.workspace, found.files, wanted.keys() | have.keys(), self.progress)
        local |= {skipped.path: NOT_CONTENT for skipped in found.skipped}
        plan = plan_sync(wanted, have, local, force=force)
        result = SyncResult(at, unchanged=len(plan.adopt), kept=plan.kept, conflicts=plan.conflicts)
        self._remove(plan, found, result)
        self.workspace.record_progress(
            self.target, {path: wanted[path] for path in plan.adopt if have.get(path) != wanted[path]}, plan.forget
        )
        self._fetch(plan, wanted, found, result)
        now_has = self.workspace.have()
        self.workspace.record(self.target, {}, (), at if now_has == wanted else None)
        self.tree.clean()
        return result

    def _wanted(self, at: int, have: dict[str, Version]) -> dict[str, Version]:
        has = self.workspace.target
        if has is not None and has.branch_id == self.target.branch_id and self.workspace.at == at:
            return have
        return self.depot.manifest(self.target.branch_id, at).files

    def _remove(self, plan: SyncPlan, found: Scan, result: SyncResult) -> None:
        gone = []
        for path in plan.remove:
            try:
                self.tree.remove(path, found.files.get(path))
                gone.append(path)
            except FileChanged:
                result.conflicts.append(Conflict(path, ConflictReason.CHANGED_MEANWHILE))
        result.removed = len(gone)
        self.workspace.record_progress(self.target, {}, gone)

    def _fetch(self, plan: SyncPlan, wanted: Mapping[str, Version], found: Scan, result: SyncResult) -> None:
        if not plan.fetch:
            return
        placed: dict[str, FileStat] = {}
        downloader = Downloader(self.depot, self.target.project_id, self.tree, self.progress)
        for done in downloader.download(by_content(plan.fetch, wanted, found.files)):
            self.workspace.record_progress(self.target, {path: wanted[path] for path in done.placed}, ())
            placed |= done.placed
            result.conflicts += [Conflict(path, ConflictReason.CHANGED_MEANWHILE) for path in done.changed]
            result.fetched_objects += done.fetched_objects
            result.fetched_bytes += done.fetched_bytes
        result.fetched = len(placed)
        self._remember_placed(placed, wanted)

    def _remember_placed(self, placed: Mapping[str, FileStat], wanted: Mapping[str, Version]) -> None:
        """Look again at what was placed: by now most time stamps are old enough to be trusted."""
        looked_at_ns = now_ns()
        self.workspace.remember_seen(
            {
                path: Seen(stat, wanted[path].sha256, looked_at_ns)
                for path, stat in placed.items()
                if current_stat(self.workspace.root / path) == stat
            }
        )


@dataclass(frozen=True, slots=True)
class Status:
    """How a workspace differs: what a submit would send, what a sync would bring, and what is opened."""

    target: Target
    at: int | None
    head_no: int
    changed_here: list[Item]
    changed_in_depot: list[Item]
    opened: list[OpenedFile]


def status(depot: DepotClient, root: Path, progress: Progress | None = None) -> Status:
    """Compare a workspace with its records and with the head of its branch. Raises WorkspaceError."""
    with open_existing(root) as (workspace, target):
        branch = depot.branch(target.branch_id)
        have = workspace.have()
        files = scan(root).files
        local = current_hashes(workspace, files, files, progress or Silent())
        head = have if workspace.at == branch.head_no else depot.manifest(branch.id, branch.head_no).files
        return Status(
            target,
            workspace.at,
            branch.head_no,
            with_moves(plan_submit(local, have, delete_missing=True), have, workspace.moved()),
            _between(have, head),
            opened_files(workspace),
        )


def _between(have: Mapping[str, Version], head: Mapping[str, Version]) -> list[Item]:
    contents = {path: version.sha256 for path, version in head.items()}
    return plan_submit(contents, have, delete_missing=True)


@dataclass(frozen=True, slots=True)
class Verification:
    """What re-reading every file that came from the depot has shown."""

    checked: int
    checked_bytes: int
    missing: list[str]
    different: list[str]

    @property
    def is_intact(self) -> bool:
        return not self.missing and not self.different


def verify(root: Path, progress: Progress | None = None) -> Verification:
    """Hash every file of a workspace anew and compare with what came from the depot. Raises WorkspaceError."""
    with open_existing(root) as (workspace, _):
        have = workspace.have()
        found = scan(root).files
        files = {path: found[path] for path in have if path in found}
        different = []
        for group in hash_files(root, files, progress or Silent()):
            different += [path for path, seen in group.items() if seen.sha256 != have[path].sha256]
        missing = [path for path in have if path not in found]
        return Verification(len(have), sum(stat.size_bytes for stat in files.values()), missing, sorted(different))
