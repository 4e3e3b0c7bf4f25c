"""Rules of obliterating: an admin's, planned before done, taken back until the time of grace is over."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

from psycopg import errors
from psycopg.rows import DictRow

from depot_api import events
from depot_api.database.pool import Transaction
from depot_api.events import EventKind
from depot_api.identity import service as identity
from depot_api.identity.actor import Actor
from depot_api.obliterations import queries
from depot_api.obliterations.models import (
    MAX_VERSIONS,
    Obliteration,
    ObliterationCreate,
    ObliterationPlan,
    ObliterationStatus,
)
from depot_api.patterns import as_regex
from depot_api.problems import Conflict, Invalid, NotFound, ProblemError, StillShown
from depot_api.projects import service as projects
from depot_api.wire import Page, decode_uuid_cursor, encode_cursor


async def request_obliteration(actor: Actor, project_id: UUID, wanted: ObliterationCreate) -> ObliterationPlan:
    """What would go, and unless it is a dry run, it is unreadable from now on. Raises StillShown, NotFound, Invalid."""
    async with actor.transaction() as tx:
        await projects.readable_project(tx, project_id)
        await identity.refuse_unless_admin(tx)
        chosen = await _chosen(tx, project_id, wanted)
        await _refuse_shown(tx, project_id, chosen)
        plan = await _plan(tx, project_id, chosen)
        if wanted.dry_run:
            return plan
        assets, numbers = [row["asset_id"] for row in chosen], [row["number"] for row in chosen]
        grace = timedelta(seconds=actor.depot.settings.obliterate_grace_seconds)
        made = await queries.obliterate(tx, project_id, wanted.reason, grace, assets, numbers)
        payload = {"obliteration_id": str(made), "versions": len(chosen), "reason": wanted.reason}
        await events.record(tx, project_id, EventKind.OBLITERATION_REQUESTED, actor.user_id, payload)
    return plan.model_copy(update={"obliteration_id": made})


async def _chosen(tx: Transaction, project_id: UUID, wanted: ObliterationCreate) -> list[DictRow]:
    regex = as_regex(wanted.pattern) if wanted.pattern else None
    rows = await queries.chosen_versions(tx, project_id, wanted.asset_id, regex, wanted.versions, MAX_VERSIONS + 1)
    if not rows:
        raise NotFound("Nothing matches that has content: no such version, or it is obliterated already.")
    if len(rows) > MAX_VERSIONS:
        raise Invalid(f"That matches more than {MAX_VERSIONS} versions. Take a narrower pattern, several times.")
    return rows


async def _refuse_shown(tx: Transaction, project_id: UUID, chosen: list[DictRow]) -> None:
    keys, numbers = [row["path_key"] for row in chosen], [row["number"] for row in chosen]
    shown = await queries.shown_versions(tx, project_id, keys, numbers)
    if shown:
        first = shown[0]
        raise StillShown(
            f"{first['path']} version {first['number']} is what branch {first['branch']} shows. "
            "Submit a delete or another version there first.",
            errors=[
                ProblemError(detail=f"{row['path']} version {row['number']} on {row['branch']}", pointer="")
                for row in shown
            ],
        )


async def _plan(tx: Transaction, project_id: UUID, chosen: list[DictRow]) -> ObliterationPlan:
    sizes = {row["sha256"]: row["size_bytes"] for row in chosen}
    kept = await queries.still_referred(
        tx, project_id, [row["asset_id"] for row in chosen], [row["number"] for row in chosen], list(sizes)
    )
    removed = [size_bytes for sha256, size_bytes in sizes.items() if sha256 not in kept]
    return ObliterationPlan(
        project_id=project_id,
        versions=len(chosen),
        objects=len(sizes),
        objects_removed=len(removed),
        removed_bytes=sum(removed),
        obliteration_id=None,
    )


async def _readable(tx: Transaction, obliteration_id: UUID) -> Obliteration:
    row = await queries.obliteration(tx, obliteration_id)
    if row is None:
        raise NotFound(f"There is no obliteration {obliteration_id} that you can see.")
    return Obliteration.model_validate(row)


async def get_obliteration(actor: Actor, obliteration_id: UUID) -> Obliteration:
    async with actor.transaction() as tx:
        return await _readable(tx, obliteration_id)


async def list_obliterations(actor: Actor, project_id: UUID, limit: int, cursor: str | None) -> Page[Obliteration]:
    """Newest first."""
    before = decode_uuid_cursor(cursor)
    async with actor.transaction() as tx:
        await projects.readable_project(tx, project_id)
        rows = await queries.obliterations(tx, project_id, before, limit)
    items = [Obliteration.model_validate(row) for row in rows]
    return Page(items=items, next_cursor=encode_cursor(str(items[-1].id)) if len(items) == limit else None)


async def cancel_obliteration(actor: Actor, obliteration_id: UUID) -> Obliteration:
    """Everything can be read again. Raises Conflict when the bytes are gone."""
    async with actor.transaction() as tx:
        obliteration = await _unfinished(tx, obliteration_id)
        try:
            await queries.cancel(tx, obliteration_id)
        except errors.RestrictViolation:
            raise Conflict("The obliteration has just been finished.") from None
        await _tell(tx, actor, EventKind.OBLITERATION_CANCELLED, obliteration)
        return await _readable(tx, obliteration_id)


async def complete_obliteration(actor: Actor, obliteration_id: UUID) -> Obliteration:
    """Remove the bytes from the store and its mirror. Interrupted, it is simply done again."""
    async with actor.transaction() as tx:
        obliteration = await _unfinished(tx, obliteration_id)
        if obliteration.due_at > datetime.now(UTC):
            raise Conflict(f"The time of grace ends at {obliteration.due_at.isoformat()}. Complete it after that.")
        try:
            hashes = await queries.complete(tx, obliteration_id)
        except errors.RestrictViolation:
            raise Conflict("The obliteration has just been finished.") from None
        # Before the commit: content that is sent again meanwhile waits for its record, and then looks for its bytes.
        await asyncio.to_thread(actor.depot.store.remove, hashes)
        await _tell(tx, actor, EventKind.OBLITERATION_COMPLETED, obliteration)
        return await _readable(tx, obliteration_id)


async def _unfinished(tx: Transaction, obliteration_id: UUID) -> Obliteration:
    obliteration = await _readable(tx, obliteration_id)
    await identity.refuse_unless_admin(tx)
    if obliteration.status is not ObliterationStatus.REQUESTED:
        raise Conflict(f"The obliteration is {obliteration.status} and never changes again.")
    return obliteration


async def _tell(tx: Transaction, actor: Actor, kind: EventKind, obliteration: Obliteration) -> None:
    payload = {"obliteration_id": str(obliteration.id)}
    await events.record(tx, obliteration.project_id, kind, actor.user_id, payload)
