"""/projects/{id}/audit and /audit"""

from uuid import UUID

from fastapi import APIRouter

from depot_api.audit import service
from depot_api.audit.models import AuditRow
from depot_api.identity.actor import AccountUser, CurrentUser
from depot_api.problems import Forbidden, documented
from depot_api.wire import Cursor, Limit, Page

router = APIRouter(tags=["audit"])


@router.get(
    "/projects/{project_id}/audit", summary="List who changed what, newest first", responses=documented(Forbidden)
)
async def list_audit(project_id: UUID, actor: CurrentUser, limit: Limit = 100, cursor: Cursor = None) -> Page[AuditRow]:
    return await service.list_audit(actor, project_id, limit, cursor)


@router.get("/audit", summary="List who changed accounts and API tokens, newest first", responses=documented(Forbidden))
async def list_studio_audit(actor: AccountUser, limit: Limit = 100, cursor: Cursor = None) -> Page[AuditRow]:
    """What changed in a project is in that project's audit log."""
    return await service.list_studio_audit(actor, limit, cursor)
