"""/branches"""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Query, Response, status
from fastapi.responses import StreamingResponse

from depot_api.branches import service
from depot_api.branches.models import MAX_CHANGELIST_NO, Branch, BranchCreate, Manifest
from depot_api.identity.actor import CurrentUser
from depot_api.problems import AlreadyExists, Forbidden, ProjectArchived, documented
from depot_api.wire import Cursor, Limit, Page, Text

router = APIRouter(tags=["branches"])

NDJSON = "application/x-ndjson"
At = Annotated[
    int | None, Query(ge=0, le=MAX_CHANGELIST_NO, description="As of this changelist; the head when left out.")
]


@router.post(
    "/branches",
    status_code=status.HTTP_201_CREATED,
    summary="Create a branch; copies nothing",
    responses=documented(AlreadyExists, Forbidden, ProjectArchived),
)
async def create_branch(body: BranchCreate, actor: CurrentUser) -> Branch:
    return await service.create_branch(actor, body)


@router.get("/branches/{branch_id}", summary="Get a branch", responses=documented())
async def get_branch(branch_id: UUID, actor: CurrentUser) -> Branch:
    return await service.get_branch(actor, branch_id)


@router.get("/projects/{project_id}/branches", summary="List a project's branches", responses=documented())
async def list_branches(
    project_id: UUID,
    actor: CurrentUser,
    name: Annotated[Text | None, Query(max_length=200, description="Exactly this name, in any case.")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[Branch]:
    return await service.list_branches(actor, project_id, name, limit, cursor)


@router.get(
    "/branches/{branch_id}/manifest",
    summary="List what a branch holds, now or as of any changelist",
    response_model=Manifest,
    responses={200: {"content": {NDJSON: {"schema": {"type": "string"}}}}, **documented()},
)
async def get_manifest(
    branch_id: UUID,
    actor: CurrentUser,
    at: At = None,
    limit: Limit = 100,
    cursor: Cursor = None,
    accept: Annotated[str, Header()] = "",
) -> Response:
    """Pages of JSON, or with `Accept: application/x-ndjson` the whole manifest as a stream of lines."""
    if NDJSON not in accept:
        page = await service.manifest(actor, branch_id, at, limit, cursor)
        return Response(page, media_type="application/json")
    return StreamingResponse(await service.stream_manifest(actor, branch_id, at), media_type=NDJSON)
