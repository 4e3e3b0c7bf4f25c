"""SQL of storage use."""

import datetime
from uuid import UUID

from psycopg.rows import DictRow

from depot_api.database.pool import Transaction, fetch_all, fetch_one


async def usage(tx: Transaction, project_id: UUID) -> DictRow:
    """The last count and what came since, in one snapshot."""
    row = await fetch_one(
        tx,
        """SELECT (u.used_bytes + c.used_bytes)::bigint AS used_bytes, (u.objects + c.objects)::bigint AS objects,
                  (SELECT coalesce(sum(size_bytes), 0)::bigint FROM upload_reservations r
                   WHERE r.project_id = u.project_id AND r.expires_at > now()) AS reserved_bytes
           FROM project_usage u CROSS JOIN LATERAL (
               SELECT coalesce(sum(used_bytes), 0) AS used_bytes, coalesce(sum(objects), 0) AS objects
               FROM usage_changes WHERE project_id = u.project_id) c
           WHERE u.project_id = %s""",
        (project_id,),
    )
    assert row is not None, "every project has its count"
    return row


async def reserve_upload(tx: Transaction, project_id: UUID, size_bytes: int, sha256: bytes | None) -> UUID | None:
    row = await fetch_one(tx, "SELECT reserve_upload(%s, %s, %s) AS id", (project_id, size_bytes, sha256))
    return row["id"] if row else None


async def release_upload(tx: Transaction, reservation: UUID) -> bool:
    """False when it had expired."""
    row = await fetch_one(tx, "SELECT release_upload(%s) AS held", (reservation,))
    return row is not None and bool(row["held"])


async def take_snapshot(tx: Transaction, project_id: UUID) -> DictRow:
    row = await fetch_one(tx, "SELECT * FROM take_storage_snapshot(%s)", (project_id,))
    assert row is not None
    return row


async def snapshots(tx: Transaction, project_id: UUID, before: datetime.date, limit: int) -> list[DictRow]:
    return await fetch_all(
        tx,
        """SELECT day, taken_at, used_bytes, objects, quota_bytes FROM storage_snapshots
           WHERE project_id = %s AND day < %s ORDER BY day DESC LIMIT %s""",
        (project_id, before, limit),
    )
