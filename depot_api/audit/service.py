"""Reading the audit log: managers see their project's, admins also what concerns accounts."""

from collections.abc import Sequence
from uuid import UUID

from psycopg.rows import DictRow

from depot_api.audit import queries
from depot_api.audit.models import AuditRow
from depot_api.identity import service as identity
from depot_api.identity.actor import Actor
from depot_api.problems import Forbidden
from depot_api.projects import service as projects
from depot_api.projects.models import ProjectRole
from depot_api.wire import Page, decode_cursor, encode_cursor

NEWEST = 2**63 - 1


async def list_audit(actor: Actor, project_id: UUID, limit: int, cursor: str | None) -> Page[AuditRow]:
    """Newest first."""
    before = _before(cursor)
    async with actor.transaction() as tx:
        project = await projects.readable_project(tx, project_id)
        if not project.my_role.covers(ProjectRole.MANAGER):
            raise Forbidden(f"The audit log of project {project.name} is for its managers; you are {project.my_role}.")
        rows = await queries.audit_rows(tx, project_id, before, limit)
    return _page(rows, limit)


async def list_studio_audit(actor: Actor, limit: int, cursor: str | None) -> Page[AuditRow]:
    """Of accounts and API tokens, newest first."""
    before = _before(cursor)
    async with actor.transaction() as tx:
        await identity.refuse_unless_admin(tx)
        rows = await queries.studio_audit_rows(tx, before, limit)
    return _page(rows, limit)


def _before(cursor: str | None) -> int:
    place = decode_cursor(cursor, int)
    return int(place[0]) if place else NEWEST


def _page(rows: Sequence[DictRow], limit: int) -> Page[AuditRow]:
    items = [AuditRow.model_validate(row) for row in rows]
    return Page(items=items, next_cursor=encode_cursor(items[-1].id) if len(items) == limit else None)
