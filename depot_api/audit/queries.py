"""SQL of the audit log."""

from uuid import UUID

from psycopg.rows import DictRow

from depot_api.database.pool import Transaction, fetch_all

_ROW = "SELECT id, table_name, operation, actor_id, request_id, before, after, recorded_at FROM audit_log "


async def audit_rows(tx: Transaction, project_id: UUID, before: int, limit: int) -> list[DictRow]:
    return await fetch_all(
        tx, _ROW + "WHERE project_id = %s AND id < %s ORDER BY id DESC LIMIT %s", (project_id, before, limit)
    )


async def studio_audit_rows(tx: Transaction, before: int, limit: int) -> list[DictRow]:
    """Of what belongs to no project."""
    return await fetch_all(tx, _ROW + "WHERE project_id IS NULL AND id < %s ORDER BY id DESC LIMIT %s", (before, limit))
