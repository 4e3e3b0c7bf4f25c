"""Rules of workspaces: what one has, and what a sync to a point of its branch has to change in it."""

import json
from collections.abc import AsyncIterator, Sequence
from uuid import UUID

from psycopg import errors

from depot_api import events
from depot_api.branches import service as branches
from depot_api.branches.models import Branch
from depot_api.database.pool import Transaction
from depot_api.events import EventKind
from depot_api.idempotency import once
from depot_api.identity.actor import Actor
from depot_api.paths import path_key
from depot_api.patterns import any_as_regex
from depot_api.problems import AlreadyExists, Conflict, Invalid, NotFound, ProblemError
from depot_api.projects import service as projects
from depot_api.projects.models import ProjectRole
from depot_api.wire import Page, decode_cursor, encode_cursor
from depot_api.workspaces import queries
from depot_api.workspaces.models import (
    Activity,
    ActivityKind,
    HadFile,
    HaveFile,
    Synced,
    SyncPlan,
    SyncRequest,
    Workspace,
    WorkspaceCreate,
    WorkspaceUpdate,
)
from depot_api.workspaces.queries import Comparison, Files

# Paths compared per transaction while a sync streams: no transaction is open while bytes move (invariant 8).
STREAM_BATCH_ROWS = 20_000
# Up to so many touched heads are looked up one by one; past it, going through all paths in order is faster.
MAX_SPARSE_ROWS = 20_000


async def create_workspace(actor: Actor, wanted: WorkspaceCreate, idempotency_key: str | None) -> Workspace:
    async def create() -> Workspace:
        await projects.writable_project(tx, wanted.project_id, ProjectRole.VIEWER)
        await _branch_of(tx, wanted.project_id, wanted.branch_id)
        row = await _insert(tx, actor, wanted)
        workspace = Workspace.model_validate(row)
        await queries.insert_activity(tx, workspace.id, ActivityKind.CREATED)
        await _record(tx, actor, EventKind.WORKSPACE_CREATED, workspace)
        return workspace

    async with actor.transaction() as tx:
        request = "create workspace " + wanted.model_dump_json()
        return await once(tx, actor.user_id, idempotency_key, request, Workspace, create)


async def _insert(tx: Transaction, actor: Actor, wanted: WorkspaceCreate) -> dict[str, object]:
    try:
        return await queries.insert_workspace(
            tx,
            wanted.project_id,
            wanted.branch_id,
            actor.user_id,
            wanted.name,
            wanted.include,
            wanted.exclude,
        )
    except errors.UniqueViolation:
        raise AlreadyExists(
            f"You have a workspace {wanted.name!r} in this project already. Choose another name.",
            errors=[ProblemError(detail="taken", pointer="/name")],
        ) from None


async def _branch_of(tx: Transaction, project_id: UUID, branch_id: UUID) -> Branch:
    branch = await branches.readable_branch(tx, branch_id)
    if branch.project_id != project_id:
        raise NotFound(f"There is no branch {branch_id} in this project.")
    return branch


async def _record(tx: Transaction, actor: Actor, kind: EventKind, workspace: Workspace) -> None:
    payload = {"workspace_id": str(workspace.id), "name": workspace.name, "branch_id": str(workspace.branch_id)}
    await events.record(tx, workspace.project_id, kind, actor.user_id, payload)


async def readable_workspace(tx: Transaction, workspace_id: UUID) -> Workspace:
    """Raises NotFound for one that is not the asker's own: a workspace is nobody else's to see."""
    row = await queries.workspace(tx, workspace_id)
    if row is None:
        raise NotFound(f"You have no workspace {workspace_id}.")
    return Workspace.model_validate(row)


async def _locked_workspace(tx: Transaction, workspace_id: UUID) -> Workspace:
    workspace = await readable_workspace(tx, workspace_id)
    await projects.writable_project(tx, workspace.project_id, ProjectRole.VIEWER)
    row = await queries.lock_workspace(tx, workspace_id)
    if row is None:
        raise NotFound(f"You have no workspace {workspace_id}.")
    return Workspace.model_validate(row)


async def get_workspace(actor: Actor, workspace_id: UUID) -> Workspace:
    async with actor.transaction() as tx:
        return await readable_workspace(tx, workspace_id)


async def list_workspaces(actor: Actor, project_id: UUID, limit: int, cursor: str | None) -> Page[Workspace]:
    after = decode_cursor(cursor, str)
    async with actor.transaction() as tx:
        await projects.readable_project(tx, project_id)
        rows = await queries.workspaces(tx, project_id, str(after[0]) if after else "", limit)
    items = [Workspace.model_validate(row) for row in rows]
    return Page(items=items, next_cursor=encode_cursor(items[-1].name) if len(items) == limit else None)


async def update_workspace(actor: Actor, workspace_id: UUID, wanted: WorkspaceUpdate) -> Workspace:
    """Switch to another branch, or change the patterns. The next sync then compares every path."""
    async with actor.transaction() as tx:
        before = await _locked_workspace(tx, workspace_id)
        branch_id = wanted.branch_id or before.branch_id
        include = before.include if wanted.include is None else wanted.include
        exclude = before.exclude if wanted.exclude is None else wanted.exclude
        if (branch_id, include, exclude) == (before.branch_id, before.include, before.exclude):
            return before
        await _branch_of(tx, before.project_id, branch_id)
        row = await queries.update_mapping(tx, workspace_id, branch_id, include, exclude)
        workspace = Workspace.model_validate(row)
        if branch_id != before.branch_id:
            await queries.insert_activity(tx, workspace_id, ActivityKind.SWITCHED)
        if (include, exclude) != (before.include, before.exclude):
            await queries.insert_activity(tx, workspace_id, ActivityKind.MAPPED)
        await _record(tx, actor, EventKind.WORKSPACE_UPDATED, workspace)
        return workspace


async def delete_workspace(actor: Actor, workspace_id: UUID) -> None:
    async with actor.transaction() as tx:
        workspace = await _locked_workspace(tx, workspace_id)
        await queries.insert_activity(tx, workspace_id, ActivityKind.DELETED)
        await queries.delete_workspace(tx, workspace_id)
        await _record(tx, actor, EventKind.WORKSPACE_DELETED, workspace)


async def list_files(actor: Actor, workspace_id: UUID, limit: int, cursor: str | None) -> Page[HadFile]:
    """The have-list, in path order."""
    after = decode_cursor(cursor, str)
    async with actor.transaction() as tx:
        await readable_workspace(tx, workspace_id)
        rows = await queries.files(tx, workspace_id, str(after[0]) if after else "", limit)
    items = [HadFile.model_validate(row) for row in rows]
    return Page(items=items, next_cursor=encode_cursor(rows[-1]["path_key"]) if len(rows) == limit else None)


async def sync(actor: Actor, workspace_id: UUID, wanted: SyncRequest) -> AsyncIterator[bytes]:
    """JSON lines: the plan, each path whose file has to change, and last {"rows": n}, without which it was cut off.

    Sparse is the answer that looks only at paths touched between the workspace's range (since_no, at_no] and the
    target. It is right because every path that was not touched there is in the have-list as it was at since_no: that
    holds from the last acknowledgement that was complete, until the branch is switched, a pattern changes, the
    have-list is corrected or the owner may read other paths than before (which the database notes). Then, and where
    more than MAX_SPARSE_ROWS heads were touched, every path is compared.
    """
    had = _files(wanted.have, "/have")
    async with actor.transaction() as tx:
        workspace = await readable_workspace(tx, workspace_id)
        if had.keys:
            await _correct(tx, workspace_id, had)
        branch = await branches.readable_branch(tx, workspace.branch_id)
        at = await branches.resolve_point(tx, branch, wanted.at, wanted.label)
        comparison = _comparison(workspace, at)
        touched = await _sparse_range(tx, workspace_id, comparison)
        plan = SyncPlan(workspace_id=workspace_id, branch_id=branch.id, at=at, is_sparse=touched is not None)
        sparse = await queries.touched_differences(tx, comparison, *touched, MAX_SPARSE_ROWS) if touched else None
    return _sparse_lines(plan, sparse) if sparse else _all_lines(actor, plan, comparison)


async def _correct(tx: Transaction, workspace_id: UUID, had: Files) -> None:
    workspace = await _locked_workspace(tx, workspace_id)
    unknown = await queries.unknown_versions(tx, workspace.project_id, had)
    if unknown:
        named = [
            ProblemError(detail=f"{row['path']!r} has no version {row['version']}", pointer="/have") for row in unknown
        ]
        raise Invalid(f"{named[0].detail}. Send the versions that came from the depot.", errors=named)
    await queries.correct_files(tx, workspace.project_id, workspace_id, had)


def _comparison(workspace: Workspace, at: int) -> Comparison:
    include, exclude = any_as_regex(workspace.include), any_as_regex(workspace.exclude)
    return Comparison(workspace.id, workspace.branch_id, at, include, exclude)


async def _sparse_range(tx: Transaction, workspace_id: UUID, comparison: Comparison) -> tuple[int, int] | None:
    """The changelists (low, high] outside of which nothing can differ, where going by them is possible and faster."""
    row = await queries.workspace(tx, workspace_id)
    if row is None or row["since_no"] is None:
        return None
    low, high = min(row["since_no"], comparison.at), max(row["at_no"], comparison.at)
    touched = await queries.touched_rows(tx, comparison.branch_id, low, high, MAX_SPARSE_ROWS)
    return (low, high) if touched < MAX_SPARSE_ROWS else None


async def _sparse_lines(plan: SyncPlan, sparse: dict[str, object]) -> AsyncIterator[bytes]:
    yield plan.model_dump_json().encode() + b"\n"
    if sparse["lines"]:
        yield str(sparse["lines"]).encode() + b"\n"
    yield json.dumps({"rows": sparse["rows"]}).encode() + b"\n"


async def _all_lines(actor: Actor, plan: SyncPlan, comparison: Comparison) -> AsyncIterator[bytes]:
    yield plan.model_dump_json().encode() + b"\n"
    after: str | None = ""
    rows = 0
    while after is not None:
        async with actor.transaction() as tx:
            page = await queries.differences(tx, comparison, after, STREAM_BATCH_ROWS)
        after = page["last_key"]
        rows += page["rows"]
        if page["lines"]:
            yield page["lines"].encode() + b"\n"
    yield json.dumps({"rows": rows}).encode() + b"\n"


async def synced(actor: Actor, workspace_id: UUID, done: Synced) -> Workspace:
    """Take note of what arrived. In batches, in any order; the same batch again changes nothing.

    A file is taken only as what the branch and the patterns give at that point, so that the have-list is always
    between two points of the branch. `complete` is checked and not believed: where something is left to do, the
    workspace stays incomplete.
    """
    had = _files(done.files, "/files")
    async with actor.transaction() as tx:
        workspace = await _locked_workspace(tx, workspace_id)
        branch = await branches.readable_branch(tx, workspace.branch_id)
        comparison = _comparison(workspace, await branches.resolve_point(tx, branch, done.at, None))
        updated, removed = await _take(tx, workspace, comparison, had)
        if done.complete and not await _differs(tx, comparison):
            await queries.complete_at(tx, workspace_id, comparison.at)
        after = await readable_workspace(tx, workspace_id)
        if updated or removed or after != workspace:
            await queries.insert_activity(tx, workspace_id, ActivityKind.SYNCED, updated, removed)
        return after


async def _take(tx: Transaction, workspace: Workspace, comparison: Comparison, had: Files) -> tuple[int, int]:
    """How many files were put into the have-list or replaced there, and how many taken out."""
    if not had.keys:
        return 0, 0
    unlike = await queries.unlike_the_branch(tx, comparison, had)
    if unlike:
        named = [ProblemError(detail=_unlike_words(row, comparison.at), pointer="/files") for row in unlike]
        raise Conflict(f"{named[0].detail}. Ask for a sync again, and acknowledge what it answers.", errors=named)
    updated = await queries.put_files(tx, workspace.project_id, comparison, had)
    removed = await queries.remove_files(tx, workspace.id, had)
    await queries.widen_range(tx, workspace.id, comparison.at)
    return updated, removed


def _unlike_words(row: dict[str, object], at: int) -> str:
    def words(version: object) -> str:
        return "not there" if version is None else f"version {version}"

    return (
        f"{row['path']!r} is {words(row['expected_version'])} for this workspace at changelist {at}, "
        f"not {words(row['version'])}"
    )


async def _differs(tx: Transaction, comparison: Comparison) -> bool:
    touched = await _sparse_range(tx, comparison.workspace_id, comparison)
    if touched:
        sparse = await queries.touched_differences(tx, comparison, *touched, MAX_SPARSE_ROWS)
        return bool(sparse["rows"])
    after: str | None = ""
    while after is not None:
        page = await queries.differences(tx, comparison, after, STREAM_BATCH_ROWS)
        if page["rows"]:
            return True
        after = page["last_key"]
    return False


def _files(files: Sequence[HaveFile], pointer: str) -> Files:
    """Raises Invalid when two of the paths are one file."""
    by_key: dict[str, HaveFile] = {}
    for index, file in enumerate(files):
        if by_key.setdefault(path_key(file.path), file) is not file:
            raise Invalid(
                f"{file.path!r} is in this request twice. Send each path once.",
                errors=[ProblemError(detail=file.path, pointer=f"{pointer}/{index}/path")],
            )
    return Files(list(by_key), [file.path for file in by_key.values()], [file.version for file in by_key.values()])


async def activity_of_project(actor: Actor, project_id: UUID, limit: int, cursor: str | None) -> Page[Activity]:
    """What was done with workspaces in a project, newest first."""
    before = _before(cursor)
    async with actor.transaction() as tx:
        await projects.readable_project(tx, project_id)
        rows = await queries.activity_of_project(tx, project_id, before, limit)
    return _activity_page(rows, limit)


async def activity_of_workspace(actor: Actor, workspace_id: UUID, limit: int, cursor: str | None) -> Page[Activity]:
    before = _before(cursor)
    async with actor.transaction() as tx:
        await readable_workspace(tx, workspace_id)
        rows = await queries.activity_of_workspace(tx, workspace_id, before, limit)
    return _activity_page(rows, limit)


def _activity_page(rows: Sequence[dict[str, object]], limit: int) -> Page[Activity]:
    items = [Activity.model_validate(row) for row in rows]
    return Page(items=items, next_cursor=encode_cursor(items[-1].id) if len(items) == limit else None)


def _before(cursor: str | None) -> int | None:
    place = decode_cursor(cursor, int)
    return int(place[0]) if place else None
