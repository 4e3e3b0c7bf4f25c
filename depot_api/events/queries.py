"""SQL of reading a project's events."""

from uuid import UUID

from psycopg.rows import DictRow

from depot_api.database.pool import Transaction, fetch_all


async def events(tx: Transaction, project_id: UUID, after_id: int, limit: int) -> list[DictRow]:
    """Oldest first. Below the snapshot's xmin no running transaction can still add one before those that are shown.

    The place of `after_id` is looked up, for a restore can change it; if the restore took the event itself away, the
    one before it counts.
    """
    return await fetch_all(
        tx,
        """WITH place AS (
               SELECT xact_id, id FROM events WHERE project_id = %(project)s AND id <= %(after)s
               ORDER BY id DESC LIMIT 1)
           SELECT id, project_id, kind, actor_id, payload, created_at FROM events
           WHERE project_id = %(project)s AND xact_id < pg_snapshot_xmin(pg_current_snapshot())
             AND (xact_id, id) > (coalesce((SELECT xact_id FROM place), '0'), coalesce((SELECT id FROM place), 0))
           ORDER BY xact_id, id LIMIT %(limit)s""",
        {"project": project_id, "after": after_id, "limit": limit},
    )
