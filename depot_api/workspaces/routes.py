"""/workspaces"""

from uuid import UUID

from fastapi import APIRouter, status
from fastapi.responses import StreamingResponse

from depot_api.idempotency import Key
from depot_api.identity.actor import CurrentUser
from depot_api.problems import AlreadyExists, Conflict, Forbidden, IdempotencyKeyReused, ProjectArchived, documented
from depot_api.wire import Cursor, Limit, Page
from depot_api.workspaces import service
from depot_api.workspaces.models import (
    Activity,
    HadFile,
    Synced,
    SyncRequest,
    Workspace,
    WorkspaceCreate,
    WorkspaceUpdate,
)

router = APIRouter(tags=["workspaces"])

NDJSON = "application/x-ndjson"


@router.post(
    "/workspaces",
    status_code=status.HTTP_201_CREATED,
    summary="Create a workspace",
    responses=documented(AlreadyExists, Forbidden, ProjectArchived, IdempotencyKeyReused),
)
async def create_workspace(body: WorkspaceCreate, actor: CurrentUser, idempotency_key: Key = None) -> Workspace:
    """Patterns: `*` stands for anything within a segment, `**` for any number of directories, in any case."""
    return await service.create_workspace(actor, body, idempotency_key)


@router.get("/workspaces/{workspace_id}", summary="Get a workspace of your own", responses=documented())
async def get_workspace(workspace_id: UUID, actor: CurrentUser) -> Workspace:
    return await service.get_workspace(actor, workspace_id)


@router.get("/projects/{project_id}/workspaces", summary="List your workspaces in a project", responses=documented())
async def list_workspaces(
    project_id: UUID, actor: CurrentUser, limit: Limit = 100, cursor: Cursor = None
) -> Page[Workspace]:
    return await service.list_workspaces(actor, project_id, limit, cursor)


@router.patch(
    "/workspaces/{workspace_id}",
    summary="Switch a workspace's branch, or change its patterns",
    responses=documented(Forbidden, ProjectArchived),
)
async def update_workspace(workspace_id: UUID, body: WorkspaceUpdate, actor: CurrentUser) -> Workspace:
    return await service.update_workspace(actor, workspace_id, body)


@router.delete(
    "/workspaces/{workspace_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    summary="Delete a workspace and its have-list",
    responses=documented(Forbidden, ProjectArchived),
)
async def delete_workspace(workspace_id: UUID, actor: CurrentUser) -> None:
    await service.delete_workspace(actor, workspace_id)


@router.get("/workspaces/{workspace_id}/files", summary="List what a workspace has", responses=documented())
async def list_files(
    workspace_id: UUID, actor: CurrentUser, limit: Limit = 100, cursor: Cursor = None
) -> Page[HadFile]:
    return await service.list_files(actor, workspace_id, limit, cursor)


@router.post(
    "/workspaces/{workspace_id}/sync",
    summary="Ask what to fetch, replace and remove for a point of the branch",
    response_class=StreamingResponse,
    responses={
        200: {"content": {NDJSON: {"schema": {"type": "string"}}}},
        **documented(Forbidden, ProjectArchived, Conflict),
    },
)
async def sync(workspace_id: UUID, body: SyncRequest, actor: CurrentUser) -> StreamingResponse:
    """JSON lines: first `{workspace_id, branch_id, at, is_sparse}`; for each path whose file has to change
    `{action, path, asset_id, have_version, version, sha256, size_bytes}`, the action being `fetch`, `replace` or
    `remove`; last `{rows}`, without which the answer was cut off."""
    return StreamingResponse(await service.sync(actor, workspace_id, body), media_type=NDJSON)


@router.post(
    "/workspaces/{workspace_id}/synced",
    summary="Acknowledge files that a sync fetched, replaced or removed",
    responses=documented(Forbidden, ProjectArchived, Conflict),
)
async def synced(workspace_id: UUID, body: Synced, actor: CurrentUser) -> Workspace:
    return await service.synced(actor, workspace_id, body)


@router.get(
    "/workspaces/{workspace_id}/activity", summary="List what was done with a workspace", responses=documented()
)
async def activity_of_workspace(
    workspace_id: UUID, actor: CurrentUser, limit: Limit = 100, cursor: Cursor = None
) -> Page[Activity]:
    """Newest first."""
    return await service.activity_of_workspace(actor, workspace_id, limit, cursor)


@router.get(
    "/projects/{project_id}/activity",
    summary="List what was done with workspaces in a project",
    responses=documented(),
)
async def activity_of_project(
    project_id: UUID, actor: CurrentUser, limit: Limit = 100, cursor: Cursor = None
) -> Page[Activity]:
    """Newest first."""
    return await service.activity_of_project(actor, project_id, limit, cursor)
