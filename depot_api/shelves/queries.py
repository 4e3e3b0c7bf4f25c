"""SQL of shelves."""

from collections.abc import Sequence
from uuid import UUID

from psycopg.rows import DictRow

from depot_api.changelists.models import ItemRow
from depot_api.database.pool import Transaction, fetch_all, fetch_one

_SHELF = """
    SELECT s.id, s.project_id, s.branch_id, s.owner_id, u.username AS owner, s.changelist_id, s.description,
           s.items_count, s.created_at
    FROM shelves s JOIN users u ON u.id = s.owner_id
"""


async def insert_shelf(
    tx: Transaction, project_id: UUID, branch_id: UUID, owner_id: UUID, changelist_id: UUID | None, description: str
) -> UUID:
    row = await fetch_one(
        tx,
        """INSERT INTO shelves (project_id, branch_id, owner_id, changelist_id, description)
           VALUES (%s, %s, %s, %s, %s) RETURNING id""",
        (project_id, branch_id, owner_id, changelist_id, description),
    )
    assert row is not None
    return UUID(str(row["id"]))


async def shelf(tx: Transaction, shelf_id: UUID) -> DictRow | None:
    return await fetch_one(tx, _SHELF + "WHERE s.id = %s", (shelf_id,))


async def lock_shelf(tx: Transaction, shelf_id: UUID) -> bool:
    """False where it is not the asker's to change."""
    return await fetch_one(tx, "SELECT id FROM shelves WHERE id = %s FOR UPDATE", (shelf_id,)) is not None


async def shelves(
    tx: Transaction, project_id: UUID, branch_id: UUID | None, owner_id: UUID | None, before: UUID | None, limit: int
) -> list[DictRow]:
    return await fetch_all(
        tx,
        _SHELF
        + """WHERE s.project_id = %(project_id)s AND (%(branch_id)s::uuid IS NULL OR s.branch_id = %(branch_id)s)
               AND (%(owner_id)s::uuid IS NULL OR s.owner_id = %(owner_id)s)
               AND (%(before)s::uuid IS NULL OR s.id < %(before)s)
             ORDER BY s.id DESC LIMIT %(limit)s""",
        {"project_id": project_id, "branch_id": branch_id, "owner_id": owner_id, "before": before, "limit": limit},
    )


async def update_shelf(tx: Transaction, shelf_id: UUID, description: str, changelist_id: UUID | None) -> None:
    await tx.execute(
        "UPDATE shelves SET description = %s, changelist_id = %s WHERE id = %s", (description, changelist_id, shelf_id)
    )


async def delete_shelf(tx: Transaction, shelf_id: UUID) -> None:
    await tx.execute("DELETE FROM shelves WHERE id = %s", (shelf_id,))


async def delete_items(tx: Transaction, shelf_id: UUID) -> None:
    await tx.execute("DELETE FROM shelf_items WHERE shelf_id = %s", (shelf_id,))


async def insert_items(tx: Transaction, project_id: UUID, shelf_id: UUID, items: Sequence[ItemRow]) -> None:
    await tx.execute(
        """INSERT INTO shelf_items (project_id, shelf_id, path_key, path, action, base_version, sha256, moved_from,
                                    moved_from_key, source_branch_id, source_version, lock_fencing_number)
           SELECT %s, %s, * FROM unnest(%s::text[], %s::text[], %s::item_action[], %s::int[], %s::bytea[], %s::text[],
                                        %s::text[], %s::uuid[], %s::int[], %s::bigint[])""",
        (
            project_id,
            shelf_id,
            [item.path_key for item in items],
            [item.path for item in items],
            [item.action for item in items],
            [item.base_version for item in items],
            [item.sha256 for item in items],
            [item.moved_from for item in items],
            [item.moved_from_key for item in items],
            [item.source_branch_id for item in items],
            [item.source_version for item in items],
            [item.lock_fencing_number for item in items],
        ),
    )


async def copy_items(tx: Transaction, shelf_id: UUID, changelist_id: UUID) -> None:
    await tx.execute(
        """INSERT INTO shelf_items (project_id, shelf_id, path_key, path, action, base_version, sha256, moved_from,
                                    moved_from_key, source_branch_id, source_version, lock_fencing_number)
           SELECT project_id, %s, path_key, path, action, base_version, sha256, moved_from, moved_from_key,
                  source_branch_id, source_version, lock_fencing_number
           FROM changelist_items WHERE changelist_id = %s""",
        (shelf_id, changelist_id),
    )


async def refer_to_content(tx: Transaction, shelf_id: UUID) -> None:
    """The project then refers to what is shelved, so that its members may fetch it."""
    await tx.execute(
        """INSERT INTO project_blobs (project_id, sha256)
           SELECT DISTINCT project_id, sha256 FROM shelf_items WHERE shelf_id = %s AND sha256 IS NOT NULL
           ORDER BY sha256 ON CONFLICT DO NOTHING""",
        (shelf_id,),
    )


async def count_items(tx: Transaction, shelf_id: UUID) -> None:
    await tx.execute(
        """UPDATE shelves SET items_count = (SELECT count(*) FROM shelf_items WHERE shelf_id = %(id)s)
           WHERE id = %(id)s""",
        {"id": shelf_id},
    )


async def foreign_locks(tx: Transaction, shelf_id: UUID) -> list[DictRow]:
    return await fetch_all(
        tx,
        """SELECT l.path, u.username AS holder, l.expires_at::text AS expires_at
           FROM shelf_items i
           JOIN locks l ON l.project_id = i.project_id AND l.path_key IN (i.path_key, i.moved_from_key)
           JOIN users u ON u.id = l.holder_id
           WHERE i.shelf_id = %s AND l.holder_id <> app_user_id() AND l.expires_at > now() ORDER BY l.path""",
        (shelf_id,),
    )


async def items(tx: Transaction, shelf_id: UUID, after: str, limit: int) -> list[DictRow]:
    return await fetch_all(
        tx,
        """SELECT i.path_key, i.path, i.action, i.base_version, encode(i.sha256, 'hex') AS sha256, b.size_bytes,
                  i.moved_from, i.source_branch_id, i.source_version, i.lock_fencing_number
           FROM shelf_items i LEFT JOIN LATERAL (SELECT size_bytes FROM blobs WHERE sha256 = i.sha256 OFFSET 0) b
               ON true
           WHERE i.shelf_id = %s AND i.path_key > %s ORDER BY i.path_key LIMIT %s""",
        (shelf_id, after, limit),
    )


async def item_rows(tx: Transaction, shelf_id: UUID) -> list[ItemRow]:
    """As a changelist takes them. The locks that they rely on are the shelf's owner's, and nobody else's."""
    rows = await fetch_all(
        tx,
        """SELECT i.path_key, i.path, i.action::text AS action, i.base_version, i.sha256, i.moved_from,
                  i.moved_from_key, i.source_branch_id, i.source_version,
                  CASE WHEN s.owner_id = app_user_id() THEN i.lock_fencing_number END AS lock_fencing_number
           FROM shelf_items i JOIN shelves s ON s.id = i.shelf_id WHERE i.shelf_id = %s ORDER BY i.path_key""",
        (shelf_id,),
    )
    return [ItemRow(**row) for row in rows]


async def paths_in_both(tx: Transaction, shelf_id: UUID, changelist_id: UUID) -> list[str]:
    rows = await fetch_all(
        tx,
        """SELECT i.path FROM shelf_items s CROSS JOIN LATERAL (
               SELECT path FROM changelist_items WHERE changelist_id = %s AND path_key = s.path_key OFFSET 0) i
           WHERE s.shelf_id = %s ORDER BY i.path LIMIT 100""",
        (changelist_id, shelf_id),
    )
    return [row["path"] for row in rows]


async def changelist_content(tx: Transaction, changelist_id: UUID) -> list[str]:
    rows = await fetch_all(
        tx,
        """SELECT DISTINCT encode(sha256, 'hex') AS sha256 FROM changelist_items
           WHERE changelist_id = %s AND sha256 IS NOT NULL""",
        (changelist_id,),
    )
    return [row["sha256"] for row in rows]
