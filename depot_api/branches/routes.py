"""/branches and labels"""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Path, Query, Response, status
from fastapi.responses import StreamingResponse

from depot_api.branches import service
from depot_api.branches.models import (
    LABEL_PATTERN,
    MAX_CHANGELIST_NO,
    Branch,
    BranchCreate,
    BranchUpdate,
    Diff,
    Label,
    LabelSet,
    Manifest,
)
from depot_api.idempotency import Key
from depot_api.identity.actor import CurrentUser
from depot_api.problems import AlreadyExists, Forbidden, IdempotencyKeyReused, ProjectArchived, documented
from depot_api.wire import Cursor, Limit, Page, Text

router = APIRouter(tags=["branches"])

NDJSON = "application/x-ndjson"
At = Annotated[
    int | None, Query(ge=0, le=MAX_CHANGELIST_NO, description="As of this changelist; the head when left out.")
]
AtLabel = Annotated[
    Text | None,
    Query(pattern=LABEL_PATTERN, max_length=200, description="Instead of a changelist: where the label is."),
]
LabelName = Annotated[Text, Path(pattern=LABEL_PATTERN, max_length=200)]


@router.post(
    "/branches",
    status_code=status.HTTP_201_CREATED,
    summary="Create a branch; copies nothing",
    responses=documented(AlreadyExists, Forbidden, ProjectArchived, IdempotencyKeyReused),
)
async def create_branch(body: BranchCreate, actor: CurrentUser, idempotency_key: Key = None) -> Branch:
    return await service.create_branch(actor, body, idempotency_key)


@router.get("/branches/{branch_id}", summary="Get a branch", responses=documented())
async def get_branch(branch_id: UUID, actor: CurrentUser) -> Branch:
    return await service.get_branch(actor, branch_id)


@router.patch(
    "/branches/{branch_id}",
    summary="Change a branch's description and protection: who may submit, what must pass",
    responses=documented(Forbidden, ProjectArchived),
)
async def update_branch(branch_id: UUID, body: BranchUpdate, actor: CurrentUser) -> Branch:
    return await service.update_branch(actor, branch_id, body)


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
    label: AtLabel = None,
    limit: Limit = 100,
    cursor: Cursor = None,
    accept: Annotated[str, Header()] = "",
) -> Response:
    """Pages of JSON, or with `Accept: application/x-ndjson` the whole manifest as a stream of lines."""
    if NDJSON not in accept:
        page = await service.manifest(actor, branch_id, at, label, limit, cursor)
        return Response(page, media_type="application/json")
    return StreamingResponse(await service.stream_manifest(actor, branch_id, at, label), media_type=NDJSON)


@router.get(
    "/branches/{branch_id}/diff",
    summary="List what differs between two branches, or between two points of one",
    response_model=Diff,
    responses={200: {"content": {NDJSON: {"schema": {"type": "string"}}}}, **documented()},
)
async def get_diff(
    branch_id: UUID,
    actor: CurrentUser,
    against: Annotated[UUID | None, Query(description="Branch on the left; this one itself when left out.")] = None,
    from_at: Annotated[
        int | None, Query(alias="from", ge=0, le=MAX_CHANGELIST_NO, description="The left as of this changelist.")
    ] = None,
    from_label: AtLabel = None,
    to_at: Annotated[
        int | None, Query(alias="to", ge=0, le=MAX_CHANGELIST_NO, description="The right as of this changelist.")
    ] = None,
    to_label: AtLabel = None,
    limit: Limit = 100,
    cursor: Cursor = None,
    accept: Annotated[str, Header()] = "",
) -> Response:
    """What changes from the left (`against`, as of `from`) to the right (this branch, as of `to`), in path order.

    Paths whose content is the same on both sides are left out. Pages of JSON, or with `Accept: application/x-ndjson`
    the whole diff as a stream of lines.
    """
    left, right = await service.diff_points(actor, branch_id, against, (from_at, from_label), (to_at, to_label))
    if NDJSON not in accept:
        return Response(await service.diff(actor, left, right, limit, cursor), media_type="application/json")
    return StreamingResponse(service.stream_diff(actor, left, right), media_type=NDJSON)


@router.put(
    "/projects/{project_id}/labels/{name}",
    summary="Make a label, or move it: a name for a branch as of a changelist",
    responses={201: {"model": Label, "description": "The label is new."}, **documented(Forbidden, ProjectArchived)},
)
async def set_label(project_id: UUID, name: LabelName, body: LabelSet, actor: CurrentUser, response: Response) -> Label:
    label, is_new = await service.set_label(actor, project_id, name, body)
    response.status_code = status.HTTP_201_CREATED if is_new else status.HTTP_200_OK
    return label


@router.get("/projects/{project_id}/labels", summary="List a project's labels", responses=documented())
async def list_labels(project_id: UUID, actor: CurrentUser, limit: Limit = 100, cursor: Cursor = None) -> Page[Label]:
    return await service.list_labels(actor, project_id, limit, cursor)


@router.get("/projects/{project_id}/labels/{name}", summary="Get a label", responses=documented())
async def get_label(project_id: UUID, name: LabelName, actor: CurrentUser) -> Label:
    return await service.get_label(actor, project_id, name)


@router.delete(
    "/projects/{project_id}/labels/{name}",
    status_code=status.HTTP_204_NO_CONTENT,
    summary="Delete a label; what it named stays",
    responses=documented(Forbidden, ProjectArchived),
)
async def delete_label(project_id: UUID, name: LabelName, actor: CurrentUser) -> None:
    await service.delete_label(actor, project_id, name)
