"""/projects"""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, status

from depot_api.idempotency import Key
from depot_api.identity.actor import CurrentUser
from depot_api.problems import (
    AlreadyExists,
    Conflict,
    Forbidden,
    IdempotencyKeyReused,
    ProjectArchived,
    documented,
)
from depot_api.projects import service
from depot_api.projects.models import (
    ArchiveRequest,
    Member,
    MemberSet,
    Project,
    ProjectArchive,
    ProjectCreate,
    ProjectUpdate,
)
from depot_api.wire import Cursor, Limit, Page, Text

router = APIRouter(prefix="/projects", tags=["projects"])


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    summary="Create a project with a branch main",
    responses=documented(AlreadyExists, Forbidden, IdempotencyKeyReused),
)
async def create_project(body: ProjectCreate, actor: CurrentUser, idempotency_key: Key = None) -> Project:
    return await service.create_project(actor, body, idempotency_key)


@router.get("", summary="List the projects that you are a member of", responses=documented())
async def list_projects(
    actor: CurrentUser,
    name: Annotated[Text | None, Query(max_length=200, description="Exactly this name, in any case.")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[Project]:
    return await service.list_projects(actor, name, limit, cursor)


@router.get("/{project_id}", summary="Get a project", responses=documented())
async def get_project(project_id: UUID, actor: CurrentUser) -> Project:
    return await service.get_project(actor, project_id)


@router.patch(
    "/{project_id}",
    summary="Change a project",
    responses=documented(Forbidden, AlreadyExists, ProjectArchived),
)
async def update_project(project_id: UUID, body: ProjectUpdate, actor: CurrentUser) -> Project:
    return await service.update_project(actor, project_id, body)


@router.post(
    "/{project_id}/archive",
    status_code=status.HTTP_201_CREATED,
    summary="Archive a project",
    responses=documented(Forbidden, ProjectArchived, IdempotencyKeyReused),
)
async def archive_project(
    project_id: UUID, body: ArchiveRequest, actor: CurrentUser, idempotency_key: Key = None
) -> ProjectArchive:
    """It can be read as before, and takes no changes until it is un-archived. The answer is kept for good."""
    return await service.archive_project(actor, project_id, body.reason, idempotency_key)


@router.post("/{project_id}/unarchive", summary="Un-archive a project", responses=documented(Forbidden, Conflict))
async def unarchive_project(project_id: UUID, actor: CurrentUser) -> Project:
    return await service.unarchive_project(actor, project_id)


@router.get(
    "/{project_id}/archives", summary="List what a project held each time it was archived", responses=documented()
)
async def list_archives(
    project_id: UUID, actor: CurrentUser, limit: Limit = 100, cursor: Cursor = None
) -> Page[ProjectArchive]:
    return await service.list_archives(actor, project_id, limit, cursor)


@router.get("/{project_id}/members", summary="List a project's members", responses=documented())
async def list_members(project_id: UUID, actor: CurrentUser, limit: Limit = 100, cursor: Cursor = None) -> Page[Member]:
    return await service.list_members(actor, project_id, limit, cursor)


@router.post(
    "/{project_id}/members",
    summary="Add a member or change a member's role",
    responses=documented(Forbidden, Conflict, ProjectArchived),
)
async def set_member(project_id: UUID, body: MemberSet, actor: CurrentUser) -> Member:
    return await service.set_member(actor, project_id, body)


@router.delete(
    "/{project_id}/members/{user_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    summary="Remove a member",
    responses=documented(Forbidden, Conflict, ProjectArchived),
)
async def remove_member(project_id: UUID, user_id: UUID, actor: CurrentUser) -> None:
    await service.remove_member(actor, project_id, user_id)
