"""/projects/{id}/path-permissions"""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from depot_api.identity.actor import CurrentUser
from depot_api.permissions import service
from depot_api.permissions.models import MyPathAccess, PathRules
from depot_api.problems import Forbidden, ProjectArchived, documented
from depot_api.wire import Text

router = APIRouter(prefix="/projects/{project_id}", tags=["permissions"])


@router.get("/path-permissions", summary="Get a project's permissions by path", responses=documented())
async def get_path_permissions(project_id: UUID, actor: CurrentUser) -> PathRules:
    return await service.get_rules(actor, project_id)


@router.put(
    "/path-permissions",
    summary="Replace a project's permissions by path",
    responses=documented(Forbidden, ProjectArchived),
)
async def set_path_permissions(project_id: UUID, body: PathRules, actor: CurrentUser) -> PathRules:
    """For members below manager. Of the rules that match a path, the last one counts."""
    return await service.set_rules(actor, project_id, body)


@router.get("/path-access", summary="Ask what the rules let you do at a path", responses=documented())
async def get_my_path_access(
    project_id: UUID, path: Annotated[Text, Query(min_length=1, max_length=4096)], actor: CurrentUser
) -> MyPathAccess:
    return await service.my_access(actor, project_id, path)
