"""/shelves"""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, status

from depot_api.idempotency import Key
from depot_api.identity.actor import CurrentUser
from depot_api.problems import (
    ChangelistClosed,
    Conflict,
    EmptyChangelist,
    Forbidden,
    IdempotencyKeyReused,
    InvalidPath,
    Locked,
    MissingContent,
    NoTargetBranch,
    PathForbidden,
    PathInUse,
    ProjectArchived,
    documented,
)
from depot_api.shelves import service
from depot_api.shelves.models import (
    ChangelistShelve,
    Shelf,
    ShelfCreate,
    ShelfItem,
    ShelfItems,
    ShelfUpdate,
    Unshelve,
    Unshelved,
)
from depot_api.wire import Cursor, Limit, Page

router = APIRouter(tags=["shelves"])


@router.post(
    "/shelves",
    status_code=status.HTTP_201_CREATED,
    summary="Shelve work in progress",
    responses=documented(
        Forbidden, PathForbidden, ProjectArchived, Locked, MissingContent, InvalidPath, PathInUse, IdempotencyKeyReused
    ),
)
async def create_shelf(body: ShelfCreate, actor: CurrentUser, idempotency_key: Key = None) -> Shelf:
    """Its content has been sent before, as for a changelist. Members of the project may then fetch it."""
    return await service.create_shelf(actor, body, idempotency_key)


@router.post(
    "/changelists/{changelist_id}/shelve",
    status_code=status.HTTP_201_CREATED,
    summary="Shelve a changelist's items; they stay in it",
    responses=documented(
        Forbidden,
        PathForbidden,
        ProjectArchived,
        ChangelistClosed,
        NoTargetBranch,
        EmptyChangelist,
        Locked,
        MissingContent,
        IdempotencyKeyReused,
    ),
)
async def shelve_changelist(
    changelist_id: UUID, body: ChangelistShelve, actor: CurrentUser, idempotency_key: Key = None
) -> Shelf:
    return await service.shelve_changelist(actor, changelist_id, body, idempotency_key)


@router.get("/shelves/{shelf_id}", summary="Get a shelf", responses=documented())
async def get_shelf(shelf_id: UUID, actor: CurrentUser) -> Shelf:
    return await service.get_shelf(actor, shelf_id)


@router.get("/projects/{project_id}/shelves", summary="List a project's shelves", responses=documented())
async def list_shelves(
    project_id: UUID,
    actor: CurrentUser,
    branch_id: UUID | None = None,
    owner_id: Annotated[UUID | None, Query(description="Only this user's.")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[Shelf]:
    """Newest first."""
    return await service.list_shelves(actor, project_id, branch_id, owner_id, limit, cursor)


@router.get("/shelves/{shelf_id}/items", summary="List a shelf's items", responses=documented())
async def list_items(shelf_id: UUID, actor: CurrentUser, limit: Limit = 100, cursor: Cursor = None) -> Page[ShelfItem]:
    return await service.list_items(actor, shelf_id, limit, cursor)


@router.put(
    "/shelves/{shelf_id}/items",
    summary="Replace all items of a shelf",
    responses=documented(Forbidden, PathForbidden, ProjectArchived, Locked, MissingContent, InvalidPath, PathInUse),
)
async def replace_items(shelf_id: UUID, body: ShelfItems, actor: CurrentUser) -> Shelf:
    return await service.replace_items(actor, shelf_id, body.items)


@router.patch(
    "/shelves/{shelf_id}",
    summary="Change a shelf's description or its changelist",
    responses=documented(Forbidden, ProjectArchived),
)
async def update_shelf(shelf_id: UUID, body: ShelfUpdate, actor: CurrentUser) -> Shelf:
    return await service.update_shelf(actor, shelf_id, body)


@router.delete(
    "/shelves/{shelf_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    summary="Delete a shelf",
    responses=documented(Forbidden, ProjectArchived),
)
async def delete_shelf(shelf_id: UUID, actor: CurrentUser) -> None:
    await service.delete_shelf(actor, shelf_id)


@router.post(
    "/shelves/{shelf_id}/unshelve",
    summary="Copy a shelf's items into an open changelist of your own",
    responses=documented(
        Forbidden, PathForbidden, ProjectArchived, ChangelistClosed, Conflict, PathInUse, IdempotencyKeyReused
    ),
)
async def unshelve(shelf_id: UUID, body: Unshelve, actor: CurrentUser, idempotency_key: Key = None) -> Unshelved:
    return await service.unshelve(actor, shelf_id, body, idempotency_key)
