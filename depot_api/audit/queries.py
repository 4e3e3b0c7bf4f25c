"""SQL of the audit log."""

from uuid import UUID

from psycopg.rows import DictRow

from depot_api.database.pool import Transaction, fetch_all


async def audit_rows(tx: Transaction, project_id: UUID, before: int, limit: int) -> list[DictRow]:
    return await fetch_all(
        tx,
        """SELECT id, table_name, operation, actor_id, request_id, before, after, recorded_at FROM audit_log
           WHERE project_id = %s AND id < %s ORDER BY id DESC LIMIT %s""",
        (project_id, before, limit),
    )
