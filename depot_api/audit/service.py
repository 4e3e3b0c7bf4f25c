"""Reading the audit log: managers see their project's."""

from uuid import UUID

from depot_api.audit import queries
from depot_api.audit.models import AuditRow
from depot_api.identity.actor import Actor
from depot_api.problems import Forbidden
from depot_api.projects import service as projects
from depot_api.projects.models import ProjectRole
from depot_api.wire import Page, decode_cursor, encode_cursor

NEWEST = 2**63 - 1


async def list_audit(actor: Actor, project_id: UUID, limit: int, cursor: str | None) -> Page[AuditRow]:
    """Newest first."""
    before = decode_cursor(cursor, int)
    async with actor.transaction() as tx:
        project = await projects.readable_project(tx, project_id)
        if not project.my_role.covers(ProjectRole.MANAGER):
            raise Forbidden(f"The audit log of project {project.name} is for its managers; you are {project.my_role}.")
        rows = await queries.audit_rows(tx, project_id, int(before[0]) if before else NEWEST, limit)
    items = [AuditRow.model_validate(row) for row in rows]
    return Page(items=items, next_cursor=encode_cursor(items[-1].id) if len(items) == limit else None)
