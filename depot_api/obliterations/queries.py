"""SQL of obliterations."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from psycopg.rows import DictRow

from depot_api.database.pool import Transaction, fetch_all, fetch_one

_OBLITERATION = """
    SELECT o.id, o.project_id, o.reason, o.status, o.requested_by, o.requested_at, o.due_at, o.finished_at,
           (SELECT count(*) FROM obliterated_versions v WHERE v.obliteration_id = o.id) AS versions
    FROM obliterations o
"""


async def chosen_versions(
    tx: Transaction,
    project_id: UUID,
    asset_id: UUID | None,
    regex: str | None,
    numbers: Sequence[int] | None,
    limit: int,
) -> list[DictRow]:
    """{asset_id, path, path_key, number, sha256, size_bytes} of versions that are not obliterated yet."""
    return await fetch_all(
        tx,
        """SELECT a.id AS asset_id, a.path, a.path_key, v.number, v.sha256, v.size_bytes
           FROM assets a JOIN asset_versions v ON v.asset_id = a.id
           WHERE a.project_id = %(project)s AND (%(asset)s::uuid IS NULL OR a.id = %(asset)s)
             AND (%(regex)s::text IS NULL OR a.path_key ~ %(regex)s)
             AND (%(numbers)s::int[] IS NULL OR v.number = ANY (%(numbers)s))
             AND NOT EXISTS (SELECT FROM obliterated_versions o WHERE o.asset_id = a.id AND o.number = v.number)
           ORDER BY a.path_key, v.number LIMIT %(limit)s""",
        {
            "project": project_id,
            "asset": asset_id,
            "regex": regex,
            "numbers": None if numbers is None else list(numbers),
            "limit": limit,
        },
    )


async def shown_versions(
    tx: Transaction, project_id: UUID, path_keys: Sequence[str], numbers: Sequence[int]
) -> list[DictRow]:
    """Those that are the head of their path on some branch: {path, number, branch}"""
    return await fetch_all(
        tx,
        """SELECT h.path, h.version AS number, b.name AS branch
           FROM branches b CROSS JOIN unnest(%(keys)s::text[], %(numbers)s::int[]) AS chosen (key, number)
           CROSS JOIN LATERAL branch_head(b.id, chosen.key) h
           WHERE b.project_id = %(project)s AND h.version = chosen.number ORDER BY h.path LIMIT 100""",
        {"project": project_id, "keys": list(path_keys), "numbers": list(numbers)},
    )


async def still_referred(
    tx: Transaction, project_id: UUID, asset_ids: Sequence[UUID], numbers: Sequence[int], hashes: Sequence[bytes]
) -> set[bytes]:
    """Of the contents, those that other versions, projects or shelves refer to."""
    rows = await fetch_all(
        tx,
        """WITH chosen AS MATERIALIZED (
               SELECT * FROM unnest(%(assets)s::uuid[], %(numbers)s::int[]) AS c (asset_id, number))
           SELECT h.sha256 FROM unnest(%(hashes)s::bytea[]) AS h (sha256)
           WHERE EXISTS (SELECT FROM project_blobs p WHERE p.sha256 = h.sha256 AND p.project_id <> %(project)s)
              OR EXISTS (SELECT FROM shelf_items s WHERE s.sha256 = h.sha256)
              OR EXISTS (SELECT FROM asset_versions v WHERE v.project_id = %(project)s AND v.sha256 = h.sha256
                         AND NOT EXISTS (SELECT FROM chosen c WHERE c.asset_id = v.asset_id AND c.number = v.number)
                         AND NOT EXISTS (SELECT FROM obliterated_versions o
                                         WHERE o.asset_id = v.asset_id AND o.number = v.number))""",
        {"project": project_id, "assets": list(asset_ids), "numbers": list(numbers), "hashes": list(hashes)},
    )
    return {row["sha256"] for row in rows}


async def obliterate(
    tx: Transaction, project_id: UUID, reason: str, grace: timedelta, asset_ids: Sequence[UUID], numbers: Sequence[int]
) -> UUID:
    row = await fetch_one(
        tx,
        "SELECT obliterate(%s, %s, %s, %s, %s) AS id",
        (project_id, reason, grace, list(asset_ids), list(numbers)),
    )
    assert row is not None
    return UUID(str(row["id"]))


async def obliteration(tx: Transaction, obliteration_id: UUID) -> DictRow | None:
    return await fetch_one(tx, _OBLITERATION + "WHERE o.id = %s", (obliteration_id,))


async def obliterations(tx: Transaction, project_id: UUID, before: UUID | None, limit: int) -> list[DictRow]:
    return await fetch_all(
        tx,
        _OBLITERATION
        + """WHERE o.project_id = %(project)s AND (%(before)s::uuid IS NULL OR o.id < %(before)s)
             ORDER BY o.id DESC LIMIT %(limit)s""",
        {"project": project_id, "before": before, "limit": limit},
    )


async def cancel(tx: Transaction, obliteration_id: UUID) -> None:
    await tx.execute("SELECT cancel_obliteration(%s)", (obliteration_id,))


async def condemn(tx: Transaction, obliteration_id: UUID) -> None:
    """It can be cancelled no more, and its content counts as removed."""
    await tx.execute("SELECT condemn_obliteration(%s)", (obliteration_id,))


async def complete(tx: Transaction, obliteration_id: UUID) -> list[str]:
    """The condemned contents whose bytes are to be removed before the transaction ends."""
    rows = await fetch_all(
        tx, "SELECT encode(hash, 'hex') AS sha256 FROM complete_obliteration(%s) hash", (obliteration_id,)
    )
    return [row["sha256"] for row in rows]
