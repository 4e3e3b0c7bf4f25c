"""Rules of obliterating: an admin's, planned before done, taken back until the time of grace is over."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog
from psycopg import errors
from psycopg.rows import DictRow

from depot_api import events
from depot_api.database.pool import Transaction
from depot_api.events import EventKind
from depot_api.idempotency import once
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
from depot_api.problems import Conflict, Invalid, NotFound, ProblemError, StillShown, Unavailable
from depot_api.projects import service as projects
from depot_api.wire import Page, decode_uuid_cursor, encode_cursor

RETRY_AFTER_SECONDS = 30

log = structlog.get_logger("depot_api")


async def request_obliteration(
    actor: Actor, project_id: UUID, wanted: ObliterationCreate, idempotency_key: str | None
) -> ObliterationPlan:
    """What would go, and unless it is a dry run, it is unreadable from now on. Raises StillShown, NotFound, Invalid."""

    async def plan_and_do() -> ObliterationPlan:
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

    async with actor.transaction() as tx:
        request = f"obliterate {project_id} {wanted.model_dump_json()}"
        return await once(tx, actor.user_id, idempotency_key, request, ObliterationPlan, plan_and_do)


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
    """Everything can be read again. Raises Conflict when bytes may be gone."""
    async with actor.transaction() as tx:
        obliteration = await _unfinished(tx, obliteration_id)
        if obliteration.status is ObliterationStatus.CONDEMNED:
            raise Conflict("Its bytes are being removed: it can be completed, and not be taken back.")
        try:
            await queries.cancel(tx, obliteration_id)
        except errors.RestrictViolation:
            raise Conflict("The obliteration has just been condemned or finished.") from None
        await _tell(tx, actor, EventKind.OBLITERATION_CANCELLED, obliteration)
        return await _readable(tx, obliteration_id)


async def complete_obliteration(actor: Actor, obliteration_id: UUID) -> Obliteration:
    """Condemn it, then remove the bytes from every copy. What fails halfway stays condemned, and is done again.

    Raises Unavailable when a copy cannot be changed.
    """
    async with actor.transaction() as tx:
        obliteration = await _unfinished(tx, obliteration_id)
        if obliteration.due_at > datetime.now(UTC):
            raise Conflict(f"The time of grace ends at {obliteration.due_at.isoformat()}. Complete it after that.")
        with _finished_meanwhile():
            await queries.condemn(tx, obliteration_id)
    async with actor.transaction() as tx:
        with _finished_meanwhile():
            hashes = await queries.complete(tx, obliteration_id)
        # Before the commit: content that is sent again meanwhile waits for its record, and then looks for its bytes.
        await _remove(actor, hashes)
        await _tell(tx, actor, EventKind.OBLITERATION_COMPLETED, obliteration)
        return await _readable(tx, obliteration_id)


@contextmanager
def _finished_meanwhile() -> Iterator[None]:
    try:
        yield
    except errors.RestrictViolation:
        raise Conflict("The obliteration has just been finished.") from None


async def _remove(actor: Actor, hashes: list[str]) -> None:
    try:
        await asyncio.to_thread(actor.depot.store.remove, hashes)
    except OSError as error:
        log.exception("content cannot be removed")
        raise Unavailable(
            f"A copy of the content cannot be changed: {error.strerror}. It is condemned, and cannot be read or taken"
            " back. Look at the disks of the store and its mirror, then complete it again.",
            retry_after_seconds=RETRY_AFTER_SECONDS,
        ) from error


async def _unfinished(tx: Transaction, obliteration_id: UUID) -> Obliteration:
    obliteration = await _readable(tx, obliteration_id)
    await identity.refuse_unless_admin(tx)
    if obliteration.finished_at is not None:
        raise Conflict(f"The obliteration is {obliteration.status} and never changes again.")
    return obliteration


async def _tell(tx: Transaction, actor: Actor, kind: EventKind, obliteration: Obliteration) -> None:
    payload = {"obliteration_id": str(obliteration.id)}
    await events.record(tx, obliteration.project_id, kind, actor.user_id, payload)
