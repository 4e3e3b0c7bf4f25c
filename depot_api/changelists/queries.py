"""SQL of changelists and of submit."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from psycopg.rows import DictRow

from depot_api.changelists.models import ItemRow
from depot_api.database.pool import Transaction, fetch_all, fetch_one

_COLUMNS = """id, project_id, branch_id, author_id, status, number, description, items_count, revision, created_at,
              submitted_at"""

# One lookup per item. OFFSET 0 keeps the planner from turning it into a join, which it would do by nested scans of both
# tables while their statistics still say that they are empty (docs/adr/0005).
_ASSET_OF_ITEM = """CROSS JOIN LATERAL (
    SELECT id, path FROM assets WHERE project_id = i.project_id AND path_key = i.path_key OFFSET 0) a"""

# As above, OFFSET 0: joined, each of ten thousand items would be compared with every path of the branch.
_FILES_BELOW = """
    SELECT asked.key AS directory, h.path, h.path_key FROM unnest(%(keys)s::text[]) AS asked (key)
    CROSS JOIN branch_lineage l
    CROSS JOIN LATERAL (
        SELECT path_key FROM branch_heads WHERE branch_id = l.ancestor_id AND from_no <= l.upto_no
          AND path_key > asked.key || '/' AND path_key < asked.key || '0' OFFSET 0) b
    CROSS JOIN LATERAL branch_head(%(branch)s, b.path_key) h
    WHERE l.branch_id = %(branch)s AND h.version IS NOT NULL
"""


async def insert_changelist(
    tx: Transaction, project_id: UUID, branch_id: UUID | None, author_id: UUID, description: str
) -> DictRow:
    row = await fetch_one(
        tx,
        f"""INSERT INTO changelists (project_id, branch_id, author_id, description)
            VALUES (%s, %s, %s, %s) RETURNING {_COLUMNS}""",
        (project_id, branch_id, author_id, description),
    )
    assert row is not None
    return row


async def changelist(tx: Transaction, changelist_id: UUID) -> DictRow | None:
    return await fetch_one(tx, f"SELECT {_COLUMNS} FROM changelists WHERE id = %s", (changelist_id,))


async def lock_changelist(tx: Transaction, changelist_id: UUID) -> DictRow | None:
    """None where it is not the asker's to change. The lock also holds off new items, whose foreign key needs it."""
    return await fetch_one(
        tx,
        f"SELECT {_COLUMNS} FROM changelists WHERE id = %s FOR UPDATE",
        (changelist_id,),
    )


async def changelists(
    tx: Transaction, project_id: UUID, branch_id: UUID | None, status: str | None, before: UUID | None, limit: int
) -> list[DictRow]:
    return await fetch_all(
        tx,
        f"""SELECT {_COLUMNS} FROM changelists
            WHERE project_id = %(project_id)s AND (%(branch_id)s::uuid IS NULL OR branch_id = %(branch_id)s)
              AND (%(status)s::changelist_status IS NULL OR status = %(status)s)
              AND (%(before)s::uuid IS NULL OR id < %(before)s)
            ORDER BY id DESC LIMIT %(limit)s""",
        {"project_id": project_id, "branch_id": branch_id, "status": status, "before": before, "limit": limit},
    )


async def abandon(tx: Transaction, changelist_id: UUID) -> None:
    await tx.execute(
        "UPDATE changelists SET status = 'abandoned', revision = revision + 1 WHERE id = %s", (changelist_id,)
    )


async def put_items(tx: Transaction, project_id: UUID, changelist_id: UUID, items: Sequence[ItemRow]) -> int:
    """How many items the changelist then has. The same path replaces its item."""
    await tx.execute(
        """INSERT INTO changelist_items (project_id, changelist_id, path_key, path, action, base_version, sha256,
                                         moved_from, moved_from_key)
           SELECT %s, %s, * FROM unnest(%s::text[], %s::text[], %s::item_action[], %s::int[], %s::bytea[], %s::text[],
                                        %s::text[])
           ON CONFLICT (changelist_id, path_key) DO UPDATE SET path = excluded.path, action = excluded.action,
               base_version = excluded.base_version, sha256 = excluded.sha256, moved_from = excluded.moved_from,
               moved_from_key = excluded.moved_from_key, validation = 'pending', validation_report = NULL""",
        (
            project_id,
            changelist_id,
            [item.path_key for item in items],
            [item.path for item in items],
            [item.action for item in items],
            [item.base_version for item in items],
            [item.sha256 for item in items],
            [item.moved_from for item in items],
            [item.moved_from_key for item in items],
        ),
    )
    row = await fetch_one(
        tx,
        """UPDATE changelists SET revision = revision + 1,
               items_count = (SELECT count(*) FROM changelist_items WHERE changelist_id = %(id)s)
           WHERE id = %(id)s RETURNING items_count""",
        {"id": changelist_id},
    )
    assert row is not None
    return int(row["items_count"])


async def items(tx: Transaction, changelist_id: UUID, after: str, limit: int) -> list[DictRow]:
    return await fetch_all(
        tx,
        """SELECT path_key, path, action, base_version, encode(sha256, 'hex') AS sha256, moved_from
           FROM changelist_items WHERE changelist_id = %s AND path_key > %s ORDER BY path_key LIMIT %s""",
        (changelist_id, after, limit),
    )


async def content_hashes(tx: Transaction, changelist_id: UUID) -> list[str]:
    rows = await fetch_all(
        tx,
        """SELECT DISTINCT encode(sha256, 'hex') AS sha256 FROM changelist_items
           WHERE changelist_id = %s AND sha256 IS NOT NULL""",
        (changelist_id,),
    )
    return [row["sha256"] for row in rows]


# Submit. In this order: the branch's row first, the project's counter last, so that two submits never deadlock. ------


async def lock_branch(tx: Transaction, branch_id: UUID) -> DictRow | None:
    return await fetch_one(
        tx,
        """SELECT id, name, submit_role, require_review, require_validation FROM branches WHERE id = %s
           FOR NO KEY UPDATE""",
        (branch_id,),
    )


async def stale_items(tx: Transaction, changelist_id: UUID, branch_id: UUID) -> list[DictRow]:
    """Items whose base is not the head. A move has two, the path it leaves, and the one it takes, which must be free"""
    return await fetch_all(
        tx,
        """WITH bases AS (
               SELECT path, CASE action WHEN 'move' THEN moved_from_key ELSE path_key END AS key, base_version
               FROM changelist_items WHERE changelist_id = %(id)s
               UNION ALL
               SELECT path, path_key, NULL FROM changelist_items WHERE changelist_id = %(id)s AND action = 'move')
           SELECT b.path, b.base_version, h.version AS head_version, h.from_no AS head_changelist_no
           FROM bases b LEFT JOIN LATERAL branch_head(%(branch)s, b.key) h ON true
           WHERE b.base_version IS DISTINCT FROM h.version ORDER BY b.path""",
        {"id": changelist_id, "branch": branch_id},
    )


async def foreign_locks(tx: Transaction, changelist_id: UUID) -> list[DictRow]:
    return await fetch_all(
        tx,
        """SELECT l.path, u.username AS holder, l.expires_at::text AS expires_at
           FROM changelist_items i
           JOIN locks l ON l.project_id = i.project_id AND l.path_key IN (i.path_key, i.moved_from_key)
           JOIN users u ON u.id = l.holder_id
           WHERE i.changelist_id = %s AND l.holder_id <> app_user_id() AND l.expires_at > now() ORDER BY l.path""",
        (changelist_id,),
    )


async def misspelt_paths(tx: Transaction, changelist_id: UUID) -> list[DictRow]:
    """Items whose path differs from an asset's only in case or Unicode form."""
    return await fetch_all(
        tx,
        f"""SELECT i.path, a.path AS existing FROM changelist_items i {_ASSET_OF_ITEM}
            WHERE i.changelist_id = %s AND a.path <> i.path ORDER BY i.path LIMIT 100""",
        (changelist_id,),
    )


async def changed_paths(tx: Transaction, changelist_id: UUID) -> list[DictRow]:
    """Where the tree changes shape: {path, path_key, appears} for new paths, {path_key} with appears false for gone."""
    return await fetch_all(
        tx,
        """SELECT path, path_key, true AS appears FROM changelist_items
           WHERE changelist_id = %(id)s AND action NOT IN ('delete', 'edit')
           UNION ALL
           SELECT path, CASE action WHEN 'move' THEN moved_from_key ELSE path_key END, false FROM changelist_items
           WHERE changelist_id = %(id)s AND action IN ('delete', 'move')""",
        {"id": changelist_id},
    )


async def files_at(tx: Transaction, branch_id: UUID, path_keys: Sequence[str]) -> list[DictRow]:
    """Those of the paths that live on the branch."""
    return await fetch_all(
        tx,
        """SELECT h.path, h.path_key FROM unnest(%s::text[]) AS asked (key)
           CROSS JOIN LATERAL branch_head(%s, asked.key) h WHERE h.version IS NOT NULL""",
        (list(path_keys), branch_id),
    )


async def files_below(tx: Transaction, branch_id: UUID, path_keys: Sequence[str]) -> list[DictRow]:
    """For each path that is a directory on the branch: one file that lives in it. {directory, path, path_key}"""
    return await fetch_all(tx, _FILES_BELOW, {"keys": list(path_keys), "branch": branch_id})


async def open_gates(tx: Transaction, changelist_id: UUID) -> DictRow:
    row = await fetch_one(
        tx,
        """SELECT (SELECT count(*) FROM changelist_items WHERE changelist_id = %(id)s AND validation <> 'passed')
                      AS not_validated,
                  EXISTS (SELECT FROM reviews WHERE changelist_id = %(id)s AND verdict = 'approved'
                          AND reviewer_id <> app_user_id())
                  AND NOT EXISTS (SELECT FROM reviews WHERE changelist_id = %(id)s AND verdict = 'changes_requested')
                      AS approved""",
        {"id": changelist_id},
    )
    assert row is not None
    return row


async def next_number(tx: Transaction, project_id: UUID) -> int:
    """Locks the project's counter until the transaction ends: numbers are in the order of commits, without gaps."""
    row = await fetch_one(
        tx,
        "UPDATE changelist_counters SET last_no = last_no + 1 WHERE project_id = %s RETURNING last_no",
        (project_id,),
    )
    assert row is not None
    return int(row["last_no"])


async def land(
    tx: Transaction, changelist_id: UUID, project_id: UUID, branch_id: UUID, author_id: UUID, number: int
) -> datetime:
    """History, heads and references of every item, then the changelist itself. Returns when."""
    parameters = {
        "id": changelist_id,
        "project": project_id,
        "branch": branch_id,
        "author": author_id,
        "no": number,
    }
    await tx.execute(
        """INSERT INTO project_blobs (project_id, sha256)
           SELECT DISTINCT %(project)s::uuid, sha256 FROM changelist_items
           WHERE changelist_id = %(id)s AND sha256 IS NOT NULL ORDER BY sha256 ON CONFLICT DO NOTHING""",
        parameters,
    )
    await tx.execute(
        """INSERT INTO assets (project_id, path_key, path, created_by)
           SELECT project_id, path_key, path, %(author)s FROM changelist_items
           WHERE changelist_id = %(id)s AND action <> 'delete' ORDER BY path_key
           ON CONFLICT (project_id, path_key) DO NOTHING""",
        parameters,
    )
    await tx.execute(
        f"""WITH named AS MATERIALIZED (
               SELECT a.id, i.action, i.sha256, i.moved_from FROM changelist_items i {_ASSET_OF_ITEM}
               WHERE i.changelist_id = %(id)s AND i.action <> 'delete'),
           changed AS (
               UPDATE assets a SET last_version = a.last_version + 1 FROM named WHERE a.id = named.id
               RETURNING a.id AS asset_id, a.path_key, a.path, a.last_version AS version, named.action, named.sha256,
                         named.moved_from),
           sized AS (SELECT changed.*, b.size_bytes FROM changed JOIN blobs b ON b.sha256 = changed.sha256),
           versions AS (
               INSERT INTO asset_versions (project_id, asset_id, number, sha256, size_bytes, action, branch_id,
                                           changelist_id, changelist_no, author_id, moved_from)
               SELECT %(project)s, asset_id, version, sha256, size_bytes, action, %(branch)s, %(id)s, %(no)s,
                      %(author)s, moved_from
               FROM sized)
           INSERT INTO branch_heads (project_id, branch_id, path_key, from_no, path, asset_id, version, sha256,
                                     size_bytes)
           SELECT %(project)s, %(branch)s, path_key, %(no)s, path, asset_id, version, sha256, size_bytes FROM sized""",
        parameters,
    )
    await tx.execute(
        """INSERT INTO branch_heads (project_id, branch_id, path_key, from_no, path, asset_id)
           SELECT %(project)s, %(branch)s, a.path_key, %(no)s, a.path, a.id
           FROM changelist_items i CROSS JOIN LATERAL (
               SELECT id, path, path_key FROM assets WHERE project_id = %(project)s
                 AND path_key = CASE i.action WHEN 'move' THEN i.moved_from_key ELSE i.path_key END OFFSET 0) a
           WHERE i.changelist_id = %(id)s AND i.action IN ('delete', 'move')""",
        parameters,
    )
    await tx.execute(
        """DELETE FROM locks l USING changelist_items i
           WHERE i.changelist_id = %(id)s AND l.project_id = %(project)s AND l.holder_id = %(author)s
             AND l.path_key IN (i.path_key, i.moved_from_key)""",
        parameters,
    )
    await tx.execute("UPDATE branches SET head_no = %(no)s WHERE id = %(branch)s", parameters)
    row = await fetch_one(
        tx,
        """UPDATE changelists SET status = 'submitted', number = %(no)s, submitted_at = now(), revision = revision + 1
           WHERE id = %(id)s RETURNING submitted_at""",
        parameters,
    )
    assert row is not None
    submitted_at = row["submitted_at"]
    assert isinstance(submitted_at, datetime)
    return submitted_at
