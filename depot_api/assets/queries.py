"""SQL of assets and their versions."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from depot_api.database.pool import Transaction, fetch_all, fetch_one

_ASSET = "SELECT id, project_id, path, asset_type, tags, metadata, last_version, created_at FROM assets "
_VERSION = """
    SELECT asset_id, number, sha256, size_bytes, action, branch_id, changelist_id, changelist_no, author_id, created_at,
           EXISTS (SELECT FROM obliterated_versions o
                   WHERE o.asset_id = v.asset_id AND o.number = v.number) AS obliterated
    FROM asset_versions v
"""


async def asset(tx: Transaction, asset_id: UUID) -> DictRow | None:
    return await fetch_one(tx, _ASSET + "WHERE id = %s", (asset_id,))


async def asset_at(tx: Transaction, project_id: UUID, path_key: str) -> DictRow | None:
    return await fetch_one(tx, _ASSET + "WHERE project_id = %s AND path_key = %s", (project_id, path_key))


async def assets(tx: Transaction, project_id: UUID, prefix_key: str, after: str, limit: int) -> list[DictRow]:
    """In path order, with `path_key`. The upper bound is the prefix followed by the greatest character there is."""
    return await fetch_all(
        tx,
        """SELECT id, project_id, path, asset_type, tags, metadata, last_version, created_at, path_key FROM assets
           WHERE project_id = %(project_id)s AND path_key > %(after)s
             AND path_key >= %(prefix)s AND path_key < %(prefix)s || U&'\\+10FFFF'
           ORDER BY path_key LIMIT %(limit)s""",
        {"project_id": project_id, "prefix": prefix_key, "after": after, "limit": limit},
    )


async def insert_asset(
    tx: Transaction,
    project_id: UUID,
    path_key: str,
    path: str,
    asset_type: str,
    tags: list[str],
    metadata: dict[str, Any],
    created_by: UUID,
) -> DictRow | None:
    """None when the path is taken, in whatever case."""
    return await fetch_one(
        tx,
        """INSERT INTO assets (project_id, path_key, path, asset_type, tags, metadata, created_by)
           VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT (project_id, path_key) DO NOTHING
           RETURNING id, project_id, path, asset_type, tags, metadata, last_version, created_at""",
        (project_id, path_key, path, asset_type, tags, Jsonb(metadata), created_by),
    )


async def version(tx: Transaction, asset_id: UUID, changelist_id: UUID) -> DictRow | None:
    return await fetch_one(tx, _VERSION + "WHERE asset_id = %s AND changelist_id = %s", (asset_id, changelist_id))


async def versions(tx: Transaction, asset_id: UUID, before: int, limit: int) -> list[DictRow]:
    return await fetch_all(
        tx, _VERSION + "WHERE asset_id = %s AND number < %s ORDER BY number DESC LIMIT %s", (asset_id, before, limit)
    )


async def update_asset(
    tx: Transaction,
    asset_id: UUID,
    asset_type: str | None,
    tags: list[str] | None,
    add_tags: list[str],
    remove_tags: list[str],
    metadata: dict[str, Any] | None,
) -> DictRow:
    """NULL leaves as it is. Tags keep their order; each is there once."""
    row = await fetch_one(
        tx,
        """UPDATE assets SET asset_type = coalesce(%(asset_type)s, asset_type),
               tags = ARRAY(
                   SELECT tag FROM unnest(coalesce(%(tags)s::text[], tags) || %(add)s::text[])
                       WITH ORDINALITY AS t (tag, place)
                   WHERE tag <> ALL (%(remove)s::text[]) GROUP BY tag ORDER BY min(place)),
               metadata = coalesce(%(metadata)s, metadata)
           WHERE id = %(id)s
           RETURNING id, project_id, path, asset_type, tags, metadata, last_version, created_at""",
        {
            "asset_type": asset_type,
            "tags": tags,
            "add": add_tags,
            "remove": remove_tags,
            "metadata": Jsonb(metadata) if metadata is not None else None,
            "id": asset_id,
        },
    )
    assert row is not None
    return row


async def content_of(tx: Transaction, asset_id: UUID, number: int) -> bytes | None:
    row = await fetch_one(
        tx, "SELECT sha256 FROM asset_versions WHERE asset_id = %s AND number = %s", (asset_id, number)
    )
    return row["sha256"] if row else None


async def last_content_on(tx: Transaction, asset_id: UUID, branch_id: UUID) -> bytes | None:
    """What the asset last held on the branch, also when it is deleted there."""
    row = await fetch_one(
        tx,
        """SELECT h.sha256 FROM assets a CROSS JOIN branch_lineage l CROSS JOIN LATERAL (
               SELECT sha256, from_no FROM branch_heads
               WHERE branch_id = l.ancestor_id AND path_key = a.path_key AND from_no <= l.upto_no
                 AND version IS NOT NULL
               ORDER BY from_no DESC LIMIT 1) h
           WHERE a.id = %s AND l.branch_id = %s ORDER BY h.from_no DESC LIMIT 1""",
        (asset_id, branch_id),
    )
    return row["sha256"] if row else None


async def history(tx: Transaction, asset_id: UUID, before: tuple[int, str], limit: int) -> list[DictRow]:
    """Newest first, with `path_key`. `before` is the (changelist_no, path_key) of the last row of the page before.

    A path that was moved here counts up to the move. Each step goes to an older changelist, so moving in circles ends.
    Where it was moved from is told to those who may read that path: they see the item that moved it.
    """
    return await fetch_all(
        tx,
        """WITH RECURSIVE lives (asset_id, project_id, path_key, path, upto_no) AS (
               SELECT id, project_id, path_key, path, 9223372036854775807 FROM assets WHERE id = %(asset_id)s
               UNION
               SELECT origin.id, origin.project_id, origin.path_key, origin.path, v.changelist_no - 1
               FROM lives
               JOIN asset_versions v ON v.asset_id = lives.asset_id AND v.changelist_no <= lives.upto_no
                   AND v.action = 'move'
               JOIN changelist_items i ON i.changelist_id = v.changelist_id AND i.path_key = lives.path_key
               JOIN assets origin ON origin.project_id = lives.project_id AND origin.path_key = i.moved_from_key),
           longest AS (
               SELECT asset_id, path_key, path, max(upto_no) AS upto_no FROM lives GROUP BY asset_id, path_key, path)
           SELECT v.asset_id, v.number, v.sha256, v.size_bytes, v.action, v.branch_id, v.changelist_id,
                  v.changelist_no, v.author_id, v.created_at, i.moved_from, l.path, l.path_key
           FROM longest l JOIN asset_versions v ON v.asset_id = l.asset_id AND v.changelist_no <= l.upto_no
           LEFT JOIN changelist_items i ON i.changelist_id = v.changelist_id AND i.path_key = l.path_key
           WHERE (v.changelist_no, l.path_key) < (%(before_no)s, %(before_key)s)
           ORDER BY v.changelist_no DESC, l.path_key DESC LIMIT %(limit)s""",
        {"asset_id": asset_id, "before_no": before[0], "before_key": before[1], "limit": limit},
    )


@dataclass(frozen=True, slots=True)
class Filters:
    """What a search asks for; None asks for nothing."""

    prefix_key: str | None
    name_pattern: str | None
    asset_type: str | None
    tags: list[str] | None
    metadata: str | None
    author: str | None
    changed_since: datetime | None
    deleted: bool


async def search(
    tx: Transaction, project_id: UUID, branch_id: UUID, wanted: Filters, after: str, limit: int
) -> list[DictRow]:
    """In path order, with `path_key`."""
    return await fetch_all(
        tx,
        "SELECT * FROM search_assets(%s, %s, %s, %s, %s, %s, %s::jsonb, %s, %s, %s, %s, %s)",
        (
            project_id,
            branch_id,
            wanted.prefix_key,
            wanted.name_pattern,
            wanted.asset_type,
            wanted.tags,
            wanted.metadata,
            wanted.author,
            wanted.changed_since,
            wanted.deleted,
            after,
            limit,
        ),
    )
