"""Rules of content: what counts as had, and who may be told."""

import asyncio
from collections.abc import AsyncIterator, Callable
from uuid import UUID

from fastapi import Request, Response

from depot_api.blobstore.layout import StoredBlob
from depot_api.blobstore.store import BlobStore
from depot_api.database.pool import Transaction
from depot_api.depot import Depot
from depot_api.identity.actor import Actor
from depot_api.metrics import DEDUP_SAVED_BYTES
from depot_api.objects import queries
from depot_api.objects.models import StoredObject, StoredPack
from depot_api.objects.receiving import ObjectSink, PackSink, Sink, receive
from depot_api.objects.sending import content_response, pack_response
from depot_api.problems import NotFound, Obliterated, Unavailable
from depot_api.projects import service as projects
from depot_api.projects.models import ProjectRole
from depot_api.storage import service as storage


async def put_object(
    actor: Actor, project_id: UUID, sha256: str | None, body: AsyncIterator[bytes], size_bytes: int | None
) -> StoredObject:
    """Store one object; without `sha256` it is named by what arrives. `size_bytes` is what the sender announced."""
    reservation = await _admit(actor, project_id, size_bytes, sha256)
    stored = await _receive(actor, project_id, reservation, body, lambda: ObjectSink(actor.depot.store, sha256))
    return stored[0]


async def put_pack(actor: Actor, project_id: UUID, body: AsyncIterator[bytes], size_bytes: int | None) -> StoredPack:
    reservation = await _admit(actor, project_id, size_bytes, None)
    stored = await _receive(actor, project_id, reservation, body, lambda: PackSink(actor.depot.store))
    return StoredPack(stored=stored)


async def _admit(actor: Actor, project_id: UUID, size_bytes: int | None, sha256: str | None) -> UUID | None:
    """Rights, and room: the reservation in a project that has a quota."""
    async with actor.transaction() as tx:
        project = await projects.writable_project(tx, project_id, ProjectRole.CONTRIBUTOR)
        return await storage.reserve(tx, project, size_bytes, sha256)


async def _receive(
    actor: Actor,
    project_id: UUID,
    reservation: UUID | None,
    body: AsyncIterator[bytes],
    make_sink: Callable[[], Sink],
) -> list[StoredObject]:
    """Bytes, then the record: the row comes only when the content is durable (invariant 1)."""
    try:
        blobs = await receive(actor.depot.store, body, make_sink)
        async with actor.transaction() as tx:
            was_removed = await queries.record_blobs(tx, project_id, blobs)
            await storage.settle(tx, reservation)
    except BaseException:
        await asyncio.shield(storage.give_up(actor, reservation))
        raise
    if was_removed and len(await asyncio.to_thread(_intact, actor.depot.store, list(blobs))) < len(blobs):
        raise Unavailable("The content was being removed at that moment. Send it again.", retry_after_seconds=1)
    return [StoredObject(sha256=b.sha256, size_bytes=b.size_bytes, stored_bytes=b.stored_bytes) for b in blobs]


async def missing_objects(actor: Actor, project_id: UUID, hashes: list[str]) -> list[str]:
    """Which of these have to be sent. Had is what this project refers to or this user sent, and lies there whole."""
    async with actor.transaction() as tx:
        await projects.readable_project(tx, project_id)
        known = await known_blobs(tx, project_id, hashes)
    missing = await not_intact(actor.depot, known, hashes)
    sizes = {blob.sha256: blob.size_bytes for blob in known}
    DEDUP_SAVED_BYTES.inc(sum(sizes[sha256] for sha256 in sizes.keys() - set(missing)))
    return missing


async def known_blobs(tx: Transaction, project_id: UUID, hashes: list[str]) -> list[StoredBlob]:
    """The records of what the project has, or this user sent to it."""
    return await queries.known_blobs(tx, project_id, [bytes.fromhex(sha256) for sha256 in set(hashes)])


async def not_intact(depot: Depot, known: list[StoredBlob], hashes: list[str]) -> list[str]:
    """Those of `hashes` that no blob of `known` has, or whose file is not whole. Looks at the disk."""
    had = {blob.sha256 for blob in await asyncio.to_thread(_intact, depot.store, known)}
    return [sha256 for sha256 in dict.fromkeys(hashes) if sha256 not in had]


def _intact(store: BlobStore, blobs: list[StoredBlob]) -> list[StoredBlob]:
    """What was evicted is had, wherever it lies: reading fetches it back."""
    return [blob for blob in blobs if blob.is_evicted or store.is_intact(blob)]


async def get_object(actor: Actor, project_id: UUID, sha256: str, request: Request) -> Response:
    blobs = await _known(actor, project_id, [sha256])
    return await content_response(request, actor.depot.store, blobs[0])


async def fetch_objects(actor: Actor, project_id: UUID, hashes: list[str]) -> Response:
    return await pack_response(actor.depot.store, await _known(actor, project_id, list(dict.fromkeys(hashes))))


async def _known(actor: Actor, project_id: UUID, hashes: list[str]) -> list[StoredBlob]:
    async with actor.transaction() as tx:
        await projects.readable_project(tx, project_id)
        blobs = await queries.known_blobs(tx, project_id, [bytes.fromhex(sha256) for sha256 in hashes])
    found = {blob.sha256: blob for blob in blobs}
    unknown = [sha256 for sha256 in hashes if sha256 not in found]
    if unknown:
        async with actor.transaction() as tx:
            gone = await queries.obliterated(tx, project_id, [bytes.fromhex(sha256) for sha256 in unknown])
        if gone:
            raise Obliterated("The content was obliterated. Its history is still there.", sha256=gone)
        raise NotFound("This project does not refer to that content.", sha256=unknown)
    return [found[sha256] for sha256 in hashes]


async def get_version_content(actor: Actor, asset_id: UUID, number: int, request: Request) -> Response:
    async with actor.transaction() as tx:
        content = await queries.version_content(tx, asset_id, number)
        if content is None:
            raise NotFound(f"There is no version {number} of asset {asset_id} that you can see.")
        if await queries.is_obliterated(tx, asset_id, number):
            raise Obliterated(f"The content of version {number} was obliterated. Its history is still there.")
    project_id, sha256 = content
    blobs = await _known(actor, project_id, [sha256.hex()])
    return await content_response(request, actor.depot.store, blobs[0])
