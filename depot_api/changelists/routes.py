"""/changelists"""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response, status

from depot_api.branches.models import MAX_CHANGELIST_NO
from depot_api.branches.routes import At, AtLabel
from depot_api.changelists import service
from depot_api.changelists.models import (
    Changelist,
    ChangelistCreate,
    ChangelistItem,
    ChangelistStatus,
    ChangelistUpdate,
    ItemsAdd,
    ItemsCount,
    ItemsRevert,
    RevertRequest,
    Submitted,
    ValidationCounts,
    Validations,
)
from depot_api.idempotency import Key
from depot_api.identity.actor import CurrentUser
from depot_api.preconditions import IfMatch
from depot_api.problems import (
    ChangelistClosed,
    Conflict,
    EmptyChangelist,
    Forbidden,
    IdempotencyKeyReused,
    InvalidPath,
    Locked,
    LockLost,
    LockRequired,
    MissingContent,
    NoTargetBranch,
    PathForbidden,
    PathInUse,
    PreconditionRequired,
    ProjectArchived,
    ReviewRequired,
    StaleBase,
    StalePrecondition,
    ValidationRequired,
    documented,
)
from depot_api.wire import Cursor, Limit, Page, Text

router = APIRouter(tags=["changelists"])

PRECONDITIONS = (StalePrecondition, PreconditionRequired)


@router.post(
    "/changelists",
    status_code=status.HTTP_201_CREATED,
    summary="Open a changelist",
    responses=documented(Forbidden, ProjectArchived, IdempotencyKeyReused),
)
async def create_changelist(
    body: ChangelistCreate, actor: CurrentUser, response: Response, idempotency_key: Key = None
) -> Changelist:
    return _tagged(response, await service.create_changelist(actor, body, idempotency_key))


@router.get("/changelists/{changelist_id}", summary="Get a changelist", responses=documented())
async def get_changelist(changelist_id: UUID, actor: CurrentUser, response: Response) -> Changelist:
    return _tagged(response, await service.get_changelist(actor, changelist_id))


def _tagged(response: Response, changelist: Changelist) -> Changelist:
    response.headers["ETag"] = f'"{changelist.revision}"'
    return changelist


@router.patch(
    "/changelists/{changelist_id}",
    summary="Change a changelist's target branch or description",
    responses=documented(Forbidden, ProjectArchived, ChangelistClosed, *PRECONDITIONS),
)
async def update_changelist(
    changelist_id: UUID, body: ChangelistUpdate, actor: CurrentUser, response: Response, if_match: IfMatch = None
) -> Changelist:
    return _tagged(response, await service.update_changelist(actor, changelist_id, body, if_match))


@router.delete(
    "/changelists/{changelist_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    summary="Abandon a changelist",
    responses=documented(Forbidden, ProjectArchived, ChangelistClosed, *PRECONDITIONS),
)
async def abandon_changelist(changelist_id: UUID, actor: CurrentUser, if_match: IfMatch = None) -> None:
    await service.abandon_changelist(actor, changelist_id, if_match)


@router.post(
    "/changelists/{changelist_id}/items",
    summary="Put items into a changelist; the same path replaces its item",
    responses=documented(Forbidden, ProjectArchived, ChangelistClosed, InvalidPath, PathInUse, PathForbidden),
)
async def put_items(changelist_id: UUID, body: ItemsAdd, actor: CurrentUser) -> ItemsCount:
    return await service.put_items(actor, changelist_id, body.items)


@router.get("/changelists/{changelist_id}/items", summary="List a changelist's items", responses=documented())
async def list_items(
    changelist_id: UUID, actor: CurrentUser, limit: Limit = 100, cursor: Cursor = None
) -> Page[ChangelistItem]:
    return await service.list_items(actor, changelist_id, limit, cursor)


@router.post(
    "/changelists/{changelist_id}/items/revert",
    summary="Take items out of a changelist",
    responses=documented(Forbidden, ProjectArchived, ChangelistClosed),
)
async def revert_items(changelist_id: UUID, body: ItemsRevert, actor: CurrentUser) -> ItemsCount:
    return await service.revert_items(actor, changelist_id, body.paths)


@router.post(
    "/changelists/{changelist_id}/validations",
    summary="Write what a pipeline found out about items",
    responses=documented(Forbidden, ProjectArchived, ChangelistClosed, Conflict),
)
async def validate_items(changelist_id: UUID, body: Validations, actor: CurrentUser) -> ValidationCounts:
    """Takes an API token of the scope `pipeline`, whose user is a contributor of the project or above."""
    return await service.validate_items(actor, changelist_id, body.items)


@router.post(
    "/changelists/{changelist_id}/revert",
    status_code=status.HTTP_201_CREATED,
    summary="Open a changelist that undoes a submitted one",
    responses=documented(Forbidden, PathForbidden, ProjectArchived, Conflict, StaleBase, IdempotencyKeyReused),
)
async def revert_changelist(
    changelist_id: UUID, body: RevertRequest, actor: CurrentUser, response: Response, idempotency_key: Key = None
) -> Changelist:
    reverted = await service.revert_changelist(actor, changelist_id, body.description, idempotency_key)
    return _tagged(response, reverted)


@router.post(
    "/changelists/{changelist_id}/submit",
    summary="Submit a changelist: all of it, or nothing",
    responses=documented(
        Forbidden,
        ProjectArchived,
        ChangelistClosed,
        NoTargetBranch,
        EmptyChangelist,
        StaleBase,
        MissingContent,
        Locked,
        LockLost,
        LockRequired,
        Conflict,
        ReviewRequired,
        ValidationRequired,
        StalePrecondition,
        PathInUse,
        PathForbidden,
        IdempotencyKeyReused,
    ),
)
async def submit_changelist(
    changelist_id: UUID, actor: CurrentUser, idempotency_key: Key = None, if_match: IfMatch = None
) -> Submitted:
    return await service.submit(actor, changelist_id, idempotency_key, if_match)


@router.get("/projects/{project_id}/changelists", summary="List a project's changelists", responses=documented())
async def list_changelists(
    project_id: UUID,
    actor: CurrentUser,
    branch_id: UUID | None = None,
    status: Annotated[ChangelistStatus | None, Query()] = None,
    author_id: UUID | None = None,
    number: Annotated[
        int | None, Query(ge=1, le=MAX_CHANGELIST_NO, description="The one that a submit gave this number.")
    ] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[Changelist]:
    """Newest first."""
    return await service.list_changelists(actor, project_id, branch_id, status, author_id, number, limit, cursor)


@router.get(
    "/branches/{branch_id}/history",
    summary="List the submitted changelists that a branch shows, newest first",
    responses=documented(),
)
async def get_branch_history(
    branch_id: UUID,
    actor: CurrentUser,
    path: Annotated[
        Text | None, Query(max_length=4096, description="Only those that changed this path, in any case.")
    ] = None,
    at: At = None,
    label: AtLabel = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[Changelist]:
    """With those of its ancestors, up to where the branch began."""
    return await service.branch_history(actor, branch_id, path, at, label, limit, cursor)
