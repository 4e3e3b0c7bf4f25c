"""/projects/{id}/storage"""

from uuid import UUID

from fastapi import APIRouter

from depot_api.identity.actor import CurrentUser
from depot_api.problems import Forbidden, ProjectArchived, documented
from depot_api.storage import service
from depot_api.storage.models import Storage, StorageSnapshot
from depot_api.wire import Cursor, Limit, Page

router = APIRouter(prefix="/projects/{project_id}/storage", tags=["storage"])


@router.get("", summary="Get what a project's content takes now", responses=documented())
async def get_storage(project_id: UUID, actor: CurrentUser) -> Storage:
    return await service.get_storage(actor, project_id)


@router.get("/snapshots", summary="List what it took, newest day first", responses=documented())
async def list_snapshots(
    project_id: UUID, actor: CurrentUser, limit: Limit = 100, cursor: Cursor = None
) -> Page[StorageSnapshot]:
    return await service.list_snapshots(actor, project_id, limit, cursor)


@router.post("/snapshots", summary="Count now, and keep it for today", responses=documented(Forbidden, ProjectArchived))
async def take_snapshot(project_id: UUID, actor: CurrentUser) -> StorageSnapshot:
    """Again on the same day it replaces the one before."""
    return await service.take_snapshot(actor, project_id)
