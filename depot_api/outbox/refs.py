"""Writes refs/ from the outbox: first the documents, durable, then the cursor. A crash in between writes them again."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

from depot_api.blobstore.refs import AssetRef, BranchRef, MergeRef, ObliterationRef, ProjectRef, Ref, VersionRef
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
    project_id, payload = event["project_id"], event["payload"]
    match event["kind"].split("."):
        case _ if event["kind"] == EventKind.CHANGELIST_SUBMITTED:
            async for version in _version_refs(depot, UUID(payload["id"])):
                yield version
        case _ if event["kind"] == EventKind.CHANGELIST_UPDATED:  # a description that an admin has corrected
            async for version in _version_refs(depot, UUID(payload["changelist_id"])):
                yield version
        case ["path_permissions" | "typemap" | "label", _]:
            async with depot.database.anonymous() as tx:
                project = await queries.project(tx, project_id)
            yield ProjectRef.model_validate(project)
        case ["project" | "member", _]:
            async with depot.database.anonymous() as tx:
                project = await queries.project(tx, project_id)
                branches = await queries.branches(tx, project_id)
            yield ProjectRef.model_validate(project)
            for branch in branches:
                yield BranchRef.model_validate(branch)
        case ["branch", _] if "branch_id" in payload:
            async with depot.database.anonymous() as tx:
                branches = await queries.branches(tx, project_id, UUID(payload["branch_id"]))
            for branch in branches:
                yield BranchRef.model_validate(branch)
        case ["asset", _] if "asset_id" in payload:
            async with depot.database.anonymous() as tx:
                asset = await queries.asset(tx, project_id, UUID(payload["asset_id"]))
            if asset:
                yield AssetRef.model_validate(asset)
        case _ if event["kind"] == EventKind.MERGE_MERGED:
            async with depot.database.anonymous() as tx:
                merge = await queries.merge(tx, project_id, UUID(payload["merge_id"]))
            yield MergeRef.model_validate(merge)
        case ["obliteration", _]:
            async with depot.database.anonymous() as tx:
                obliteration = await queries.obliteration(tx, project_id, UUID(payload["obliteration_id"]))
            yield ObliterationRef.model_validate(obliteration)


async def _version_refs(depot: Depot, changelist_id: UUID) -> AsyncIterator[VersionRef]:
    after, rows = "", BATCH_REFS
    while rows == BATCH_REFS:
        async with depot.database.anonymous() as tx:
            page = await queries.versions(tx, changelist_id, after, BATCH_REFS)
        for row in page:
            yield VersionRef.model_validate(row)
        rows = len(page)
        after = page[-1]["path_key"] if page else after
