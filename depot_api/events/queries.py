"""SQL of reading a project's events."""

from uuid import UUID

from psycopg.rows import DictRow

from depot_api.database.pool import Transaction, fetch_all


async def events(tx: Transaction, project_id: UUID, xact_id: int, event_id: int, limit: int) -> list[DictRow]:
    """Oldest first. Below the snapshot's xmin no running transaction can still add one before those that are shown."""
    return await fetch_all(
        tx,
        """SELECT id, xact_id::text AS xact_id, project_id, kind, actor_id, payload, created_at FROM events
           WHERE project_id = %s AND (xact_id, id) > (%s::text::xid8, %s)
             AND xact_id < pg_snapshot_xmin(pg_current_snapshot())
           ORDER BY xact_id, id LIMIT %s""",
        (project_id, str(xact_id), event_id, limit),
    )
