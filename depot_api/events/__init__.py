"""The outbox: one row per change, written in the transaction that makes the change."""

from enum import StrEnum
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from depot_api.database.pool import Transaction
from depot_api.paths import path_key


class EventKind(StrEnum):
    PROJECT_CREATED = "project.created"
    PROJECT_UPDATED = "project.updated"
    PROJECT_ARCHIVED = "project.archived"
    PROJECT_UNARCHIVED = "project.unarchived"
    MEMBER_SET = "member.set"
    PATH_PERMISSIONS_SET = "path_permissions.set"
    MEMBER_REMOVED = "member.removed"
    BRANCH_CREATED = "branch.created"
    CHANGELIST_UPDATED = "changelist.updated"
    CHANGELIST_VALIDATED = "changelist.validated"
    BRANCH_UPDATED = "branch.updated"
    LABEL_SET = "label.set"
    LABEL_DELETED = "label.deleted"
    CHANGELIST_SUBMITTED = "changelist.submitted"
    CHANGELIST_ABANDONED = "changelist.abandoned"
    REVIEW_REQUESTED = "review.requested"
    REVIEW_DECIDED = "review.decided"
    REVIEW_COMMENTED = "review.commented"
    OBLITERATION_REQUESTED = "obliteration.requested"
    OBLITERATION_CANCELLED = "obliteration.cancelled"
    OBLITERATION_COMPLETED = "obliteration.completed"
    ASSET_CREATED = "asset.created"
    ASSET_UPDATED = "asset.updated"
    WEBHOOK_CREATED = "webhook.created"
    WEBHOOK_UPDATED = "webhook.updated"
    WEBHOOK_DELETED = "webhook.deleted"
    WORKSPACE_CREATED = "workspace.created"
    WORKSPACE_UPDATED = "workspace.updated"
    WORKSPACE_DELETED = "workspace.deleted"
    SHELF_CREATED = "shelf.created"
    SHELF_UPDATED = "shelf.updated"
    SHELF_DELETED = "shelf.deleted"
    SHELF_UNSHELVED = "shelf.unshelved"
    LOCK_ACQUIRED = "lock.acquired"
    LOCK_RENEWED = "lock.renewed"
    LOCK_RELEASED = "lock.released"
    LOCK_BROKEN = "lock.broken"
    TYPEMAP_SET = "typemap.set"
    MERGE_CREATED = "merge.created"
    MERGE_CONFLICTED = "merge.conflicted"
    MERGE_CONFLICTS_STAGED = "merge.conflicts_staged"
    MERGE_CONFLICTS_RESOLVED = "merge.conflicts_resolved"
    MERGE_MERGED = "merge.merged"
    MERGE_CANCELLED = "merge.cancelled"
    MERGE_JOB_QUEUED = "merge_job.queued"
    MERGE_JOB_FAILED = "merge_job.failed"


async def record(tx: Transaction, project_id: UUID, kind: EventKind, actor_id: UUID, payload: dict[str, Any]) -> None:
    await tx.execute(
        "INSERT INTO events (project_id, kind, actor_id, payload, path_keys) VALUES (%s, %s, %s, %s, %s)",
        (project_id, kind, actor_id, Jsonb(payload), _path_keys(payload)),
    )


def _path_keys(payload: dict[str, Any]) -> list[str]:
    """Of what the payload names: nobody is told of a path that they may not read."""
    paths = payload.get("paths", ())
    named = [payload["path"]] if "path" in payload else []
    named += paths if isinstance(paths, list) else []  # what lands a merge counts them
    named += [lock["path"] for lock in payload.get("locks", ())]
    return [path_key(path) for path in named]
