"""Writes refs/ from the outbox: first the documents, durable, then the cursor. A crash in between writes them again."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

from depot_api.blobstore.refs import AssetRef, BranchRef, MergeRef, ObliterationRef, ProjectRef, Ref, VersionRef
from depot_api.database.pool import Transaction
from depot_api.depot import Depot
from depot_api.events import EventKind
from depot_api.outbox import queries

CONSUMER = "refs"
BATCH_EVENTS = 200
# Rows of one large changelist that are held at once.
BATCH_REFS = 5_000


async def write_next(depot: Depot) -> bool:
    """Write what the next events call for. Whether there may be more at once. No transaction is open while writing."""
    async with depot.database.anonymous() as tx:
        batch = await queries.events(tx, CONSUMER, BATCH_EVENTS)
    if not batch:
        return False
    pending: dict[str, Ref] = {}
    for event in batch:
        async for ref in _refs_of(depot, event):
            pending[ref.place] = ref
            if len(pending) >= BATCH_REFS:
                await asyncio.to_thread(depot.store.write_refs, list(pending.values()))
                pending.clear()
    if pending:
        await asyncio.to_thread(depot.store.write_refs, list(pending.values()))
    async with depot.database.anonymous() as tx:
        await queries.advance(tx, CONSUMER, batch[-1]["xact_id"], batch[-1]["id"])
    return len(batch) == BATCH_EVENTS


async def _refs_of(depot: Depot, event: dict[str, Any]) -> AsyncIterator[Ref]:
    """The documents that an event touches, as they stand now."""
    payload = event["payload"]
    match event["kind"]:
        case EventKind.CHANGELIST_SUBMITTED:
            versions = _version_refs(depot, UUID(payload["id"]))
        case EventKind.CHANGELIST_UPDATED:  # a description that an admin has corrected
            versions = _version_refs(depot, UUID(payload["changelist_id"]))
        case kind:
            async with depot.database.anonymous() as tx:
                refs = await _facts_of(tx, event["project_id"], kind, payload)
            for ref in refs:
                yield ref
            return
    async for version in versions:
        yield version


async def _facts_of(tx: Transaction, project_id: UUID, kind: str, payload: dict[str, Any]) -> list[Ref]:
    found: list[Ref] = []
    match kind.split("."):
        case ["project" | "member", _]:
            found = [await _project(tx, project_id), *await _branches(tx, project_id)]
        case ["path_permissions" | "typemap" | "label", _]:
            found = [await _project(tx, project_id)]
        case ["branch", _] if "branch_id" in payload:
            found = [*await _branches(tx, project_id, UUID(payload["branch_id"]))]
        case ["asset", _] if "asset_id" in payload:
            asset = await queries.asset(tx, project_id, UUID(payload["asset_id"]))
            found = [AssetRef.model_validate(asset)] if asset else []
        case ["merge", "merged"]:
            found = [MergeRef.model_validate(await queries.merge(tx, project_id, UUID(payload["merge_id"])))]
        case ["obliteration", _]:
            obliteration = await queries.obliteration(tx, project_id, UUID(payload["obliteration_id"]))
            found = [ObliterationRef.model_validate(obliteration)]
    return found


async def _project(tx: Transaction, project_id: UUID) -> ProjectRef:
    return ProjectRef.model_validate(await queries.project(tx, project_id))


async def _branches(tx: Transaction, project_id: UUID, branch_id: UUID | None = None) -> list[BranchRef]:
    return [BranchRef.model_validate(row) for row in await queries.branches(tx, project_id, branch_id)]


async def _version_refs(depot: Depot, changelist_id: UUID) -> AsyncIterator[VersionRef]:
    after, rows = "", BATCH_REFS
    while rows == BATCH_REFS:
        async with depot.database.anonymous() as tx:
            page = await queries.versions(tx, changelist_id, after, BATCH_REFS)
        for row in page:
            yield VersionRef.model_validate(row)
        rows = len(page)
        after = page[-1]["path_key"] if page else after
