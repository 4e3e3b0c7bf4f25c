"""SQL of assets and their versions."""

from typing import Any
from uuid import UUID

from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from depot_api.database.pool import Transaction, fetch_all, fetch_one

_ASSET = "SELECT id, project_id, path, asset_type, tags, metadata, last_version, created_at FROM assets "
_VERSION = """
    SELECT asset_id, number, sha256, size_bytes, action, branch_id, changelist_id, changelist_no, author_id, created_at
    FROM asset_versions
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
