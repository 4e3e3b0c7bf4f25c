"""/projects"""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, status

from depot_api.identity.actor import CurrentUser
from depot_api.problems import AlreadyExists, Conflict, Forbidden, ProjectArchived, documented
from depot_api.projects import service
from depot_api.projects.models import Member, MemberSet, Project, ProjectCreate
from depot_api.wire import Cursor, Limit, Page, Text

router = APIRouter(prefix="/projects", tags=["projects"])


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    summary="Create a project with a branch main",
    responses=documented(AlreadyExists, Forbidden),
)
async def create_project(body: ProjectCreate, actor: CurrentUser) -> Project:
    return await service.create_project(actor, body)


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
