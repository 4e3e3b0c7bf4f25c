"""Rules of quotas: an upload has its room before its first byte is read."""

import datetime
import json
from uuid import UUID

import psycopg

from depot_api.database.pool import Transaction
from depot_api.identity.actor import Actor
from depot_api.problems import Invalid, LengthRequired, QuotaExceeded
from depot_api.projects import service as projects
from depot_api.projects.models import Project, ProjectRole
from depot_api.storage import queries
from depot_api.storage.models import Storage, StorageSnapshot
from depot_api.wire import Page, decode_cursor, encode_cursor

# Raised by reserve_upload() when there is no room.
QUOTA_EXCEEDED_SQLSTATE = "DQ001"


async def reserve(tx: Transaction, project: Project, size_bytes: int | None, sha256: str | None) -> UUID | None:
    """Room for an upload of a size; None when there is no quota, or the project is charged for `sha256` already.

    Raises LengthRequired, or QuotaExceeded.
    """
    if project.quota_bytes is None:
        return None
    if size_bytes is None:
        raise LengthRequired(
            f"Project {project.name} has a storage quota, so an upload has to say its size first. Send Content-Length."
        )
    try:
        return await queries.reserve_upload(tx, project.id, size_bytes, bytes.fromhex(sha256) if sha256 else None)
    except psycopg.DatabaseError as error:
        if error.sqlstate != QUOTA_EXCEEDED_SQLSTATE:
            raise
        seen = json.loads(error.diag.message_detail or "{}")
        raise QuotaExceeded(
            f"{size_bytes} bytes do not fit into the storage quota of project {project.name}. Nothing was stored. "
            "A manager of the project can raise the quota; uploads under way may also make room when they end.",
            size_bytes=size_bytes,
            **seen,
        ) from None


async def settle(tx: Transaction, reservation: UUID | None) -> None:
    """In the transaction that charges for the content. Raises QuotaExceeded when the room was held for too long."""
    if reservation is not None and not await queries.release_upload(tx, reservation):
        raise QuotaExceeded("The upload took so long that its room in the quota was given to others. Send it again.")


async def give_up(actor: Actor, reservation: UUID | None) -> None:
    if reservation is None:
        return
    async with actor.transaction() as tx:
        await queries.release_upload(tx, reservation)


async def get_storage(actor: Actor, project_id: UUID) -> Storage:
    async with actor.transaction() as tx:
        project = await projects.readable_project(tx, project_id)
        usage = await queries.usage(tx, project_id)
    return Storage.model_validate({**usage, "quota_bytes": project.quota_bytes})


async def take_snapshot(actor: Actor, project_id: UUID) -> StorageSnapshot:
    """Counts from nothing; one for each day is kept, the last."""
    async with actor.transaction() as tx:
        await projects.writable_project(tx, project_id, ProjectRole.MANAGER)
        return StorageSnapshot.model_validate(await queries.take_snapshot(tx, project_id))


async def list_snapshots(actor: Actor, project_id: UUID, limit: int, cursor: str | None) -> Page[StorageSnapshot]:
    after = decode_cursor(cursor, str)
    before = _day(str(after[0])) if after else datetime.date.max
    async with actor.transaction() as tx:
        await projects.readable_project(tx, project_id)
        rows = await queries.snapshots(tx, project_id, before, limit)
    items = [StorageSnapshot.model_validate(row) for row in rows]
    return Page(items=items, next_cursor=encode_cursor(items[-1].day.isoformat()) if len(items) == limit else None)


def _day(text: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise Invalid("The cursor is not one that this route gave. Leave it out to begin again.") from None
