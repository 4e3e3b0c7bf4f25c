"""SQL of content records. Row-level security decides what the asker may know of."""

from collections.abc import Sequence
from uuid import UUID

from psycopg.rows import DictRow

from depot_api.blobstore.layout import StoredBlob
from depot_api.database.pool import Transaction, fetch_all, fetch_one


async def record_blobs(tx: Transaction, project_id: UUID, blobs: Sequence[StoredBlob]) -> bool:
    """The content, and that this user has proved to possess it. Returns whether some of it had been obliterated."""
    row = await fetch_one(
        tx,
        "SELECT record_blobs(%s, %s, %s, %s, %s) AS was_removed",
        (
            project_id,
            [bytes.fromhex(blob.sha256) for blob in blobs],
            [blob.size_bytes for blob in blobs],
            [blob.stored_bytes for blob in blobs],
            [blob.stored_crc32 for blob in blobs],
        ),
    )
    return row is not None and bool(row["was_removed"])


async def known_blobs(tx: Transaction, project_id: UUID, hashes: Sequence[bytes]) -> list[StoredBlob]:
    """Those that the history or a shelf refers to, as far as the asker may read it, or that the asker has sent."""
    rows = await fetch_all(
        tx,
        """SELECT b.sha256, b.size_bytes, b.stored_bytes, b.stored_crc32, b.evicted_at IS NOT NULL AS is_evicted
           FROM unnest(%(hashes)s::bytea[]) AS asked (sha256) JOIN blobs b ON b.sha256 = asked.sha256
           WHERE EXISTS (SELECT FROM project_blobs p WHERE p.project_id = %(project_id)s AND p.sha256 = asked.sha256
                         AND (p.project_id <> ALL ((SELECT restricted_projects())::uuid[])
                              OR EXISTS (SELECT FROM asset_versions v
                                         WHERE v.project_id = p.project_id AND v.sha256 = asked.sha256)
                              OR EXISTS (SELECT FROM shelf_items s
                                         WHERE s.project_id = p.project_id AND s.sha256 = asked.sha256)))
              OR EXISTS (SELECT FROM upload_receipts r WHERE r.project_id = %(project_id)s
                         AND r.user_id = app_user_id() AND r.sha256 = asked.sha256)""",
        {"project_id": project_id, "hashes": list(hashes)},
    )
    return [_stored_blob(row) for row in rows]


async def version_content(tx: Transaction, asset_id: UUID, number: int) -> tuple[UUID, bytes] | None:
    """The project and the hash of a version's content."""
    row = await fetch_one(
        tx, "SELECT project_id, sha256 FROM asset_versions WHERE asset_id = %s AND number = %s", (asset_id, number)
    )
    return (row["project_id"], row["sha256"]) if row else None


async def is_obliterated(tx: Transaction, asset_id: UUID, number: int) -> bool:
    return (
        await fetch_one(
            tx, "SELECT 1 FROM obliterated_versions WHERE asset_id = %s AND number = %s", (asset_id, number)
        )
        is not None
    )


async def obliterated(tx: Transaction, project_id: UUID, hashes: Sequence[bytes]) -> list[str]:
    rows = await fetch_all(
        tx,
        """SELECT DISTINCT encode(sha256, 'hex') AS sha256 FROM obliterated_versions
           WHERE project_id = %s AND sha256 = ANY (%s)""",
        (project_id, list(hashes)),
    )
    return [row["sha256"] for row in rows]


def _stored_blob(row: DictRow) -> StoredBlob:
    return StoredBlob(
        sha256=row["sha256"].hex(),
        size_bytes=row["size_bytes"],
        stored_bytes=row["stored_bytes"],
        stored_crc32=row["stored_crc32"],
        is_evicted=row["is_evicted"],
    )
