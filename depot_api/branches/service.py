"""Rules of branches and labels: creating one copies nothing; reading one never waits for a submit."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import UUID

from psycopg import errors
from psycopg.rows import DictRow

from depot_api import events
from depot_api.branches import queries
from depot_api.branches.models import Branch, BranchCreate, BranchUpdate, Label, LabelSet, Point
from depot_api.database.pool import Transaction
from depot_api.events import EventKind
from depot_api.idempotency import once
from depot_api.identity.actor import Actor
from depot_api.problems import AlreadyExists, Invalid, NotFound, ProblemError
from depot_api.projects import service as projects
from depot_api.projects.models import ProjectRole
from depot_api.wire import Page, decode_cursor, encode_cursor

# Rows fetched per transaction while a manifest streams: no transaction is open while bytes move (invariant 8).
STREAM_BATCH_ROWS = 20_000


async def readable_branch(tx: Transaction, branch_id: UUID) -> Branch:
    row = await queries.branch(tx, branch_id)
    if row is None:
        raise NotFound(f"There is no branch {branch_id} that you can see.")
    return Branch.model_validate(row)


async def branch_of_project(tx: Transaction, project_id: UUID, branch_id: UUID) -> Branch:
    branch = await readable_branch(tx, branch_id)
    if branch.project_id != project_id:
        raise NotFound(f"There is no branch {branch_id} in this project.")
    return branch


async def resolve_point(tx: Transaction, branch: Branch, at: int | None, label: str | None) -> int:
    """The changelist that `at` or a label means on a branch: its head when neither is given.

    A moment that has not come yet is the head: what is shown must never change afterwards.
    """
    if label is None:
        return branch.head_no if at is None else min(at, branch.head_no)
    if at is not None:
        raise Invalid("A changelist and a label are both given. Keep one of the two.")
    named = await readable_label(tx, branch.project_id, label)
    if named.branch_id != branch.id:
        raise Invalid(f"Label {named.name} is on the branch {named.branch_id}, not on {branch.name}. Ask that branch.")
    return named.at


def _beyond_head(branch: Branch, at: int, pointer: str) -> Invalid:
    return Invalid(
        f"Branch {branch.name} is at changelist {branch.head_no}; {at} has not come yet.",
        errors=[ProblemError(detail=f"at most {branch.head_no}", pointer=pointer)],
    )


async def create_branch(actor: Actor, wanted: BranchCreate, idempotency_key: str | None) -> Branch:
    async def create() -> Branch:
        project = await projects.writable_project(tx, wanted.project_id, ProjectRole.LEAD)
        parent = await branch_of_project(tx, project.id, wanted.parent_id or project.default_branch_id)
        parent_at = await resolve_point(tx, parent, wanted.parent_at, wanted.parent_label)
        if wanted.parent_at is not None and wanted.parent_at > parent.head_no:
            raise _beyond_head(parent, wanted.parent_at, "/parent_at")
        try:
            branch_id = await queries.insert_branch(
                tx, project.id, wanted.name, wanted.description, parent.id, parent_at, actor.user_id
            )
        except errors.UniqueViolation:
            raise AlreadyExists(
                f"Project {project.name} has a branch {wanted.name!r} already. Choose another name.",
                errors=[ProblemError(detail="taken", pointer="/name")],
            ) from None
        payload = {"branch_id": str(branch_id), "name": wanted.name, "parent_at": parent_at}
        await events.record(tx, project.id, EventKind.BRANCH_CREATED, actor.user_id, payload)
        return await readable_branch(tx, branch_id)

    async with actor.transaction() as tx:
        request = "create branch " + wanted.model_dump_json()
        return await once(tx, actor.user_id, idempotency_key, request, Branch, create)


async def get_branch(actor: Actor, branch_id: UUID) -> Branch:
    async with actor.transaction() as tx:
        return await readable_branch(tx, branch_id)


async def update_branch(actor: Actor, branch_id: UUID, wanted: BranchUpdate) -> Branch:
    """Protect a branch: who may submit, and what must pass before."""
    async with actor.transaction() as tx:
        branch = await readable_branch(tx, branch_id)
        await projects.writable_project(tx, branch.project_id, ProjectRole.LEAD)
        await queries.update_branch(tx, branch_id, wanted.model_dump())
        changed = wanted.model_dump(mode="json", exclude_none=True)
        payload = {"branch_id": str(branch_id), **changed}
        await events.record(tx, branch.project_id, EventKind.BRANCH_UPDATED, actor.user_id, payload)
        return await readable_branch(tx, branch_id)


async def list_branches(
    actor: Actor, project_id: UUID, name: str | None, limit: int, cursor: str | None
) -> Page[Branch]:
    after = decode_cursor(cursor, str)
    async with actor.transaction() as tx:
        await projects.readable_project(tx, project_id)
        rows = await queries.branches(tx, project_id, name, str(after[0]) if after else "", limit)
    items = [Branch.model_validate(row) for row in rows]
    return Page(items=items, next_cursor=encode_cursor(items[-1].name.lower()) if len(items) == limit else None)


async def manifest(
    actor: Actor, branch_id: UUID, at: int | None, label: str | None, limit: int, cursor: str | None
) -> bytes:
    """A Manifest as JSON. The cursor carries the changelist, so that every page is of the same moment."""
    place = decode_cursor(cursor, int, str)
    async with actor.transaction(keeps_plans=True) as tx:
        branch = await readable_branch(tx, branch_id)
        at_no = int(place[0]) if place else await resolve_point(tx, branch, at, label)
        page = await queries.manifest_lines(tx, branch_id, at_no, str(place[1]) if place else "", limit)
    cursor = encode_cursor(at_no, page["last_key"]) if page["scanned_rows"] == limit else None
    return _json_page({"branch_id": str(branch_id), "at": at_no}, page["lines"], cursor)


def _json_page(frame: dict[str, object], lines: str | None, next_cursor: str | None) -> bytes:
    """A page whose rows PostgreSQL wrote: a thousand of them cost no more here than one."""
    # JSON text holds no raw line break, so the lines are joined into an array as they are.
    items = (lines or "").replace("\n", ",")
    return f'{json.dumps({**frame, "next_cursor": next_cursor})[:-1]}, "items": [{items}]}}'.encode()


async def stream_manifest(actor: Actor, branch_id: UUID, at: int | None, label: str | None) -> AsyncIterator[bytes]:
    """JSON lines: the branch and its point, each row, and last {"rows": n}, without which the stream was cut off."""
    async with actor.transaction() as tx:
        at_no = await resolve_point(tx, await readable_branch(tx, branch_id), at, label)

    async def batch(tx: Transaction, after: str) -> DictRow:
        return await queries.manifest_lines(tx, branch_id, at_no, after, STREAM_BATCH_ROWS)

    return _stream(actor, {"branch_id": str(branch_id), "at": at_no}, batch)


async def _stream(
    actor: Actor, frame: dict[str, object], batch: Callable[[Transaction, str], Awaitable[DictRow]]
) -> AsyncIterator[bytes]:
    yield json.dumps(frame).encode() + b"\n"
    after, live_rows, scanned = "", 0, STREAM_BATCH_ROWS
    while scanned == STREAM_BATCH_ROWS:
        async with actor.transaction() as tx:
            page = await batch(tx, after)
        after, scanned = page["last_key"], page["scanned_rows"]
        live_rows += page["live_rows"]
        if page["lines"]:
            yield page["lines"].encode() + b"\n"
    yield json.dumps({"rows": live_rows}).encode() + b"\n"


# Diff: what changes from left to right -------------------------------------------------------------------------------


async def diff_points(
    actor: Actor,
    branch_id: UUID,
    against: UUID | None,
    left: tuple[int | None, str | None],
    right: tuple[int | None, str | None],
) -> tuple[Point, Point]:
    """Left is `against`, or an earlier point of the branch itself; right is the branch. Each as (at, label)."""
    if against is None and left == (None, None):
        raise Invalid("There is nothing to compare with. Give against=<branch>, or from=<changelist> or from_label.")
    async with actor.transaction() as tx:
        branch = await readable_branch(tx, branch_id)
        other = await branch_of_project(tx, branch.project_id, against or branch_id)
        left_at, right_at = await resolve_point(tx, other, *left), await resolve_point(tx, branch, *right)
    return Point(branch_id=other.id, at=left_at), Point(branch_id=branch.id, at=right_at)


async def diff(actor: Actor, left: Point, right: Point, limit: int, cursor: str | None) -> bytes:
    """A Diff as JSON. The cursor carries both points, so that every page compares the same two moments."""
    place = decode_cursor(cursor, int, int, str)
    if place:
        left = left.model_copy(update={"at": place[0]})
        right = right.model_copy(update={"at": place[1]})
    async with actor.transaction() as tx:
        page = await _diff_lines(tx, left, right, str(place[2]) if place else "", limit)
    next_cursor = encode_cursor(left.at, right.at, page["last_key"]) if page["scanned_rows"] == limit else None
    return _json_page(_diff_frame(left, right), page["lines"], next_cursor)


def stream_diff(actor: Actor, left: Point, right: Point) -> AsyncIterator[bytes]:
    """JSON lines: both points, each row, and last {"rows": n}, without which the stream was cut off."""

    async def batch(tx: Transaction, after: str) -> DictRow:
        return await _diff_lines(tx, left, right, after, STREAM_BATCH_ROWS)

    return _stream(actor, _diff_frame(left, right), batch)


def _diff_frame(left: Point, right: Point) -> dict[str, object]:
    return {"left": left.model_dump(mode="json"), "right": right.model_dump(mode="json")}


async def _diff_lines(tx: Transaction, left: Point, right: Point, after: str, limit: int) -> DictRow:
    return await queries.diff_lines(tx, left.branch_id, left.at, right.branch_id, right.at, after, limit)


# Labels: names for a branch as of a changelist -----------------------------------------------------------------------


async def readable_label(tx: Transaction, project_id: UUID, name: str) -> Label:
    row = await queries.label(tx, project_id, name)
    if row is None:
        raise NotFound(f"There is no label {name!r} in this project.")
    return Label.model_validate(row)


async def set_label(actor: Actor, project_id: UUID, name: str, wanted: LabelSet) -> tuple[Label, bool]:
    """Make a label or move it; and whether it is new."""
    async with actor.transaction() as tx:
        await projects.writable_project(tx, project_id, ProjectRole.LEAD)
        branch = await branch_of_project(tx, project_id, wanted.branch_id)
        at = branch.head_no if wanted.at is None else wanted.at
        if at > branch.head_no:
            raise _beyond_head(branch, at, "/at")
        is_new = await queries.label(tx, project_id, name) is None
        label = Label.model_validate(await queries.set_label(tx, project_id, name, branch.id, at, actor.user_id))
        payload = {"name": label.name, "branch_id": str(branch.id), "at": at}
        await events.record(tx, project_id, EventKind.LABEL_SET, actor.user_id, payload)
        return label, is_new


async def get_label(actor: Actor, project_id: UUID, name: str) -> Label:
    async with actor.transaction() as tx:
        await projects.readable_project(tx, project_id)
        return await readable_label(tx, project_id, name)


async def list_labels(actor: Actor, project_id: UUID, limit: int, cursor: str | None) -> Page[Label]:
    after = decode_cursor(cursor, str)
    async with actor.transaction() as tx:
        await projects.readable_project(tx, project_id)
        rows = await queries.labels(tx, project_id, str(after[0]) if after else "", limit)
    items = [Label.model_validate(row) for row in rows]
    return Page(items=items, next_cursor=encode_cursor(items[-1].name.lower()) if len(items) == limit else None)


async def delete_label(actor: Actor, project_id: UUID, name: str) -> None:
    async with actor.transaction() as tx:
        await projects.writable_project(tx, project_id, ProjectRole.LEAD)
        label = await readable_label(tx, project_id, name)
        await queries.delete_label(tx, project_id, name)
        await events.record(tx, project_id, EventKind.LABEL_DELETED, actor.user_id, {"name": label.name})
