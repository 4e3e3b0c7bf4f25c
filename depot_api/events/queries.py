"""SQL of reading a project's events."""

from uuid import UUID

from psycopg.rows import DictRow

from depot_api.database.pool import Transaction, fetch_all, fetch_one


async def xact_id_of(tx: Transaction, project_id: UUID, event_id: int) -> str | None:
    """Where this event stands now: a restore can change that. None when the project has no such event."""
    row = await fetch_one(tx, "SELECT event_xact_id(%s, %s)::text AS xact_id", (project_id, event_id))
    return row["xact_id"] if row else None


async def events(tx: Transaction, project_id: UUID, xact_id: str, event_id: int, limit: int) -> list[DictRow]:
    """Oldest first. Below the snapshot's xmin no running transaction can still add one before those that are shown.

    `(xact_id, id) > (…)` in two parts: under row-level security only the first can go into the index scan, because
    the comparison of rows of xid8 is not leakproof.
    """
    return await fetch_all(
        tx,
        """SELECT id, project_id, kind, actor_id, payload, created_at FROM events
           WHERE project_id = %(project)s AND xact_id >= %(xact_id)s::text::xid8
             AND (xact_id > %(xact_id)s::text::xid8 OR id > %(id)s)
             AND xact_id < pg_snapshot_xmin(pg_current_snapshot())
           ORDER BY xact_id, id LIMIT %(limit)s""",
        {"project": project_id, "xact_id": xact_id, "id": event_id, "limit": limit},
    )
