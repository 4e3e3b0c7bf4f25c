"""A directory tree into one atomic changelist."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from uuid import uuid4

from depot_api.client.depot import DepotClient
from depot_api.client.files import FileStat
from depot_api.client.models import Action, Branch, ChangelistStatus, Item, Project, Version
from depot_api.client.plan import plan_submit, with_moves
from depot_api.client.problems import SERVER_SIDE_STATUSES, PathRefused, ProblemError, WorkspaceError
from depot_api.client.progress import Progress, Silent
from depot_api.client.scan import Scan, Skipped, scan
from depot_api.client.upload import Candidate, Uploader
from depot_api.client.workspace import Pending, Target, Workspace
from depot_api.paths import broken_rule, path_key

NOT_FOUND = 404
LISTED_PATHS = 20  # of a long list of bad paths; the rest is counted


@dataclass(slots=True)
class SubmitResult:
    """What a submit did. `number` is None when nothing had changed, or a review is awaited."""

    number: int | None = None
    changelist_id: str | None = None
    awaits_review: bool = False
    added: int = 0
    edited: int = 0
    moved: int = 0
    deleted: int = 0
    unchanged: int = 0
    sent_objects: int = 0
    sent_bytes: int = 0
    hashed_files: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    finished_earlier: int | None = None  # the number of an interrupted submit that turned out to be done
    is_remembered: bool = True  # False when the directory cannot hold the workspace's records


def submit_tree(
    depot: DepotClient,
    root: Path,
    project: Project,
    branch: Branch,
    description: str,
    *,
    delete_missing: bool = False,
    only_opened: bool = False,
    reviewers: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> SubmitResult:
    """Submit what differs in the tree `root` from what it has of the branch, as one changelist.

    What it has is in the workspace's records; a tree without any is compared with the branch's head,
    and files that only the depot has are deleted there only with `delete_missing`. An interrupted
    submit is gone on with: contents that arrived are not sent again, and it is never submitted twice.

    With `only_opened` just the opened files are looked at and submitted. Opened files that did not change stay opened.
    With `reviewers`, also with none of them, the changelist is not submitted: it waits for a review.

    Raises ProblemError (`stale-base` when others were faster), PathRefused, WorkspaceError, LocalFileError.
    """
    with Workspace(root) as workspace:
        submit = _Submit(depot, workspace, project, branch, progress or Silent())
        return submit.run(description, reviewers, delete_missing=delete_missing, only_opened=only_opened)


class _Submit:
    def __init__(
        self, depot: DepotClient, workspace: Workspace, project: Project, branch: Branch, progress: Progress
    ) -> None:
        self.depot = depot
        self.workspace = workspace
        self.branch = branch
        self.progress = progress
        self.target = Target(project.id, project.name, branch.id, branch.name)
        self.result = SubmitResult(is_remembered=workspace.is_remembered)
        must_follow(workspace, self.target)

    def run(
        self, description: str, reviewers: Sequence[str] | None, *, delete_missing: bool, only_opened: bool
    ) -> SubmitResult:
        pending = self._settle_pending()
        is_known = self.workspace.target is not None
        base, at = self._base(is_known)
        found = scan(self.workspace.root)
        self.result.skipped = found.skipped
        looked_at, compared = self._opened_part(found, base) if only_opened else (found.files, base)
        local = self._local_hashes(looked_at, compared, chain(found.files, base))
        changes = plan_submit(local, compared, delete_missing=delete_missing or is_known)
        items = self._fenced(with_moves(changes, compared, self.workspace.moved()))
        self.result.unchanged = len(looked_at) - sum(item.action is not Action.DELETE for item in items)
        if items and reviewers is not None:
            self._request_review(items, description, pending, reviewers)
            return self.result
        if items:
            self._submit(items, description, pending, base, found)
            return self.result
        if pending:
            self._abandon(pending)
        self.result.number = self.result.finished_earlier
        if not is_known:
            has = {path: version for path, version in base.items() if path in found.files}
            self.workspace.record(self.target, has, (), at if len(has) == len(base) else None)
        return self.result

    def _fenced(self, items: list[Item]) -> list[Item]:
        """With the locks that they rely on: one that was lost meanwhile refuses the submit."""
        locked = self.workspace.locked()
        if not locked:
            return items
        return [
            replace(item, lock_fencing_number=locked.get(item.path) or locked.get(item.moved_from or ""))
            for item in items
        ]

    def _base(self, is_known: bool) -> tuple[dict[str, Version], int | None]:
        if is_known:
            return self.workspace.have(), self.workspace.at
        if self.branch.head_no == 0:
            return {}, 0
        manifest = self.depot.manifest(self.branch.id)
        return manifest.files, manifest.at

    def _opened_part(self, found: Scan, base: Mapping[str, Version]) -> tuple[dict[str, FileStat], dict[str, Version]]:
        """Opened files, and what the workspace has of them. Raises WorkspaceError when they are not as opened."""
        opened = self.workspace.opened()
        if not opened and self.result.finished_earlier is None:
            raise WorkspaceError(
                f"No file is opened in {self.workspace.root}. `depot open` opens what changed; "
                "without --opened everything that changed is submitted."
            )
        odd = [
            f"{path} is opened for {action}, but {'there' if path in found.files else 'gone'}"
            for path, action in opened.items()
            if (action is Action.DELETE) == (path in found.files)
        ]
        if odd:
            more = [f"… and {len(odd) - LISTED_PATHS} more"] if len(odd) > LISTED_PATHS else []
            raise WorkspaceError(
                "Nothing was submitted: `depot open` these files for what they are now, or `depot revert` them.\n"
                + "\n".join(odd[:LISTED_PATHS] + more)
            )
        looked_at = {path: found.files[path] for path in opened if path in found.files}
        return looked_at, {path: base[path] for path in opened if path in base}

    def _local_hashes(
        self, files: Mapping[str, FileStat], base: Mapping[str, Version], all_paths: Iterable[str]
    ) -> dict[str, str]:
        """The hash of every file; those that the depot may lack are in it afterwards."""
        seen = self.workspace.seen()
        local: dict[str, str] = {}
        candidates: list[Candidate] = []
        for path, stat in files.items():
            known = seen.get(path)
            trusted = known if known and known.holds_for(stat) else None
            if trusted and path in base and base[path].sha256 == trusted.sha256:
                local[path] = trusted.sha256
            else:
                candidates.append(Candidate(path, stat, trusted))
        check_paths([one.path for one in candidates if one.path not in base], all_paths)
        return local | self._upload(candidates, base)

    def _upload(self, candidates: list[Candidate], base: Mapping[str, Version]) -> dict[str, str]:
        self.result.hashed_files = sum(one.seen is None for one in candidates)
        if not candidates:
            return {}
        in_depot = frozenset(version.sha256 for version in base.values())
        uploader = Uploader(self.depot, self.target.project_id, self.workspace.root, in_depot, self.progress)
        hashes: dict[str, str] = {}
        for uploaded in uploader.upload(candidates):
            self.workspace.remember_seen(uploaded.seen)
            hashes |= {path: seen.sha256 for path, seen in uploaded.seen.items()}
            self.result.sent_objects += uploaded.sent_objects
            self.result.sent_bytes += uploaded.sent_bytes
        return hashes

    def _submit(
        self,
        items: list[Item],
        description: str,
        begun: Pending | None,
        base: Mapping[str, Version],
        found: Scan,
    ) -> None:
        pending = self._filled_changelist(items, description, begun)
        try:
            submitted = self.depot.submit_changelist(pending.changelist_id, pending.idempotency_key)
        except ProblemError as problem:
            if problem.status not in SERVER_SIDE_STATUSES:
                self._abandon(pending)
            raise
        self._count(items)
        self.result.number, self.result.changelist_id = submitted.number, str(submitted.id)
        has = {path: version for path, version in base.items() if path in found.files or self.workspace.target}
        self._record(items, submitted.number, has)

    def _request_review(
        self, items: list[Item], description: str, begun: Pending | None, reviewers: Sequence[str]
    ) -> None:
        """Files stay as they are, and opened: a sync after the submit finds that they are right."""
        pending = self._filled_changelist(items, description, begun)
        try:
            self.depot.request_review(pending.changelist_id, reviewers)
        except ProblemError as problem:
            if problem.status not in SERVER_SIDE_STATUSES:
                self._abandon(pending)
            raise
        self.workspace.forget_pending()
        self._count(items)
        self.result.changelist_id, self.result.awaits_review = str(pending.changelist_id), True

    def _filled_changelist(self, items: list[Item], description: str, begun: Pending | None) -> Pending:
        """The changelist of an interrupted run when it says the same, else a new one."""
        if begun is not None:
            if (begun.items, begun.description) == (tuple(items), description):
                return begun
            self._abandon(begun)
        changelist = self.depot.create_changelist(self.target.project_id, self.target.branch_id, description)
        self.depot.add_items(changelist.id, items)
        pending = Pending(changelist.id, str(uuid4()), description, tuple(items))
        self.workspace.remember_pending(pending)
        return pending

    def _settle_pending(self) -> Pending | None:
        """What became of a submit whose answer never arrived: its changelist when it is still open."""
        pending = self.workspace.pending
        if pending is None:
            return None
        try:
            changelist = self.depot.changelist(pending.changelist_id)
        except ProblemError as problem:
            if problem.status != NOT_FOUND:
                raise
            self.workspace.forget_pending()
            return None
        if changelist.status is ChangelistStatus.OPEN:
            return pending
        if changelist.number is not None:
            self.result.finished_earlier = changelist.number
            self.result.changelist_id = str(changelist.id)
            self._count(pending.items)
            if self.workspace.target:  # a tree without records is compared with the new head anyway
                self._record(pending.items, changelist.number, self.workspace.have())
        self.workspace.forget_pending()
        return None

    def _abandon(self, pending: Pending) -> None:
        try:
            self.depot.abandon_changelist(pending.changelist_id)
        except ProblemError as problem:
            if problem.status != NOT_FOUND:
                raise
        self.workspace.forget_pending()

    def _record(self, items: Iterable[Item], number: int, has: dict[str, Version]) -> None:
        """Take over the version numbers that the submit gave."""
        files = self.depot.manifest(self.target.branch_id, number).files
        gone = {item.path for item in items if item.action is Action.DELETE}
        gone |= {item.moved_from for item in items if item.moved_from}
        submitted = {item.path for item in items} | gone
        changed = {item.path: files[item.path] for item in items if item.action is not Action.DELETE}
        now_has = {path: version for path, version in has.items() if path not in gone} | changed
        self.workspace.record(self.target, now_has, gone, number if now_has == files else None, submitted=submitted)

    def _count(self, items: Iterable[Item]) -> None:
        actions = Counter(item.action for item in items)
        self.result.added = actions[Action.ADD]
        self.result.edited = actions[Action.EDIT]
        self.result.moved = actions[Action.MOVE]
        self.result.deleted = actions[Action.DELETE]


def must_follow(workspace: Workspace, target: Target) -> None:
    """Raises WorkspaceError when the workspace has its files from another project or branch."""
    has = workspace.target
    if has is None or (has.project_id, has.branch_id) == (target.project_id, target.branch_id):
        return
    raise WorkspaceError(
        f"{workspace.root} has its files from branch {has.branch_name} of project {has.project_name}, "
        f"not from branch {target.branch_name} of {target.project_name}. "
        "Name that one, or sync the other branch into it (or into another directory) first."
    )


def check_paths(new_paths: Collection[str], all_paths: Iterable[str]) -> None:
    """Raises PathRefused for new paths that the depot would refuse, before anything is sent."""
    bad = [f"{path!r} {rule}" for path in new_paths if (rule := broken_rule(path))]
    if new_paths and not bad:
        first = {path_key(path): path for path in all_paths}
        pairs = ((path, first[path_key(path)]) for path in new_paths)
        bad = [
            f"{path!r} differs only in case or Unicode form from {other!r}" for path, other in pairs if path != other
        ]
    if bad:
        more = f"\n… and {len(bad) - LISTED_PATHS} more" if len(bad) > LISTED_PATHS else ""
        raise PathRefused(
            "The depot does not take these names; nothing was sent. Rename them, then submit again.\n"
            + "\n".join(bad[:LISTED_PATHS])
            + more
        )
