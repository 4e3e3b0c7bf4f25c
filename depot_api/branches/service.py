"""Rules of branches: creating one copies nothing; reading one never waits for a submit."""

import json
from collections.abc import AsyncIterator
from uuid import UUID

from psycopg import errors

from depot_api import events
from depot_api.branches import queries
from depot_api.branches.models import Branch, BranchCreate
from depot_api.database.pool import Transaction
from depot_api.events import EventKind
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


async def create_branch(actor: Actor, wanted: BranchCreate) -> Branch:
    async with actor.transaction() as tx:
        project = await projects.writable_project(tx, wanted.project_id, ProjectRole.LEAD)
        parent = await readable_branch(tx, wanted.parent_id or project.default_branch_id)
        if parent.project_id != project.id:
            raise NotFound(f"There is no branch {parent.id} in project {project.name}.")
        parent_at = parent.head_no if wanted.parent_at is None else wanted.parent_at
        if parent_at > parent.head_no:
            raise Invalid(
                f"Branch {parent.name} is at changelist {parent.head_no}; it cannot be branched at {parent_at}.",
                errors=[ProblemError(detail=f"at most {parent.head_no}", pointer="/parent_at")],
            )
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


async def get_branch(actor: Actor, branch_id: UUID) -> Branch:
    async with actor.transaction() as tx:
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


async def manifest(actor: Actor, branch_id: UUID, at: int | None, limit: int, cursor: str | None) -> bytes:
    """A Manifest as JSON, whose rows PostgreSQL wrote: a thousand of them cost no more here than one.

    The cursor carries the changelist, so that every page is of the same moment.
    """
    place = decode_cursor(cursor, int, str)
    async with actor.transaction() as tx:
        branch = await readable_branch(tx, branch_id)
        at_no = int(place[0]) if place else point(branch, at)
        page = await queries.manifest_lines(tx, branch_id, at_no, str(place[1]) if place else "", limit)
    more = page["scanned_rows"] == limit
    frame = {
        "branch_id": str(branch_id),
        "at": at_no,
        "next_cursor": encode_cursor(at_no, page["last_key"]) if more else None,
    }
    # JSON text holds no raw line break, so the lines are joined into an array as they are.
    items = (page["lines"] or "").replace("\n", ",")
    return f'{json.dumps(frame)[:-1]}, "items": [{items}]}}'.encode()


def point(branch: Branch, at: int | None) -> int:
    """A moment that has not come yet is the head: what is shown must never change afterwards."""
    return branch.head_no if at is None else min(at, branch.head_no)


async def stream_manifest(actor: Actor, branch_id: UUID, at: int | None) -> AsyncIterator[bytes]:
    """JSON lines: the branch and its point, each row, and last {"rows": n}, without which the stream was cut off."""
    async with actor.transaction() as tx:
        branch = await readable_branch(tx, branch_id)
    return _manifest_lines(actor, branch_id, point(branch, at))


async def _manifest_lines(actor: Actor, branch_id: UUID, at: int) -> AsyncIterator[bytes]:
    yield json.dumps({"branch_id": str(branch_id), "at": at}).encode() + b"\n"
    after, live_rows, scanned = "", 0, STREAM_BATCH_ROWS
    while scanned == STREAM_BATCH_ROWS:
        async with actor.transaction() as tx:
            batch = await queries.manifest_lines(tx, branch_id, at, after, STREAM_BATCH_ROWS)
        after, scanned = batch["last_key"], batch["scanned_rows"]
        live_rows += batch["live_rows"]
        if batch["lines"]:
            yield batch["lines"].encode() + b"\n"
    yield json.dumps({"rows": live_rows}).encode() + b"\n"
