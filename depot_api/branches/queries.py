"""SQL of branches and of their temporal heads."""

from typing import Any
from uuid import UUID

from psycopg.rows import DictRow

from depot_api.database.pool import Transaction, fetch_all, fetch_one

# A fresh branch has submitted nothing and shows its parent's head as of where it started.
_BRANCH = """
    SELECT id, project_id, name, description, parent_id, parent_at, submit_role, require_review, require_validation,
           approve_role, required_approvals, created_at,
           greatest(head_no, coalesce(parent_at, 0)) AS head_no
    FROM branches
"""

_MANIFEST_PAGE = "SELECT * FROM branch_manifest(%(branch_id)s, %(at)s, %(after)s, %(limit)s)"

_DIFF_PAGE = """
    WITH touched AS (
        SELECT path_key COLLATE "C" AS path_key FROM branch_touched(%(left)s, %(left_at)s, %(right)s, %(right_at)s)
        WHERE path_key COLLATE "C" > %(after)s
        ORDER BY 1 LIMIT %(limit)s)
    SELECT t.path_key, coalesce(l.path, r.path) AS path, l.version AS left_version,
           l.sha256 AS left_sha256, l.size_bytes AS left_size_bytes, r.version AS right_version,
           r.sha256 AS right_sha256, r.size_bytes AS right_size_bytes
    FROM touched t
    LEFT JOIN LATERAL branch_head(%(left)s, t.path_key, %(left_at)s) l ON true
    LEFT JOIN LATERAL branch_head(%(right)s, t.path_key, %(right_at)s) r ON true
"""

_LABEL = "SELECT project_id, name, branch_id, at_no AS at, created_by, created_at FROM labels "


async def branch(tx: Transaction, branch_id: UUID) -> DictRow | None:
    return await fetch_one(tx, _BRANCH + "WHERE id = %s", (branch_id,))


async def branches(tx: Transaction, project_id: UUID, name: str | None, after: str, limit: int) -> list[DictRow]:
    return await fetch_all(
        tx,
        _BRANCH
        + """WHERE project_id = %(project_id)s AND lower(name) > %(after)s
               AND (%(name)s::text IS NULL OR lower(name) = lower(%(name)s))
             ORDER BY lower(name) LIMIT %(limit)s""",
        {"project_id": project_id, "name": name, "after": after, "limit": limit},
    )


async def insert_branch(
    tx: Transaction, project_id: UUID, name: str, description: str, parent_id: UUID, parent_at: int, created_by: UUID
) -> UUID:
    row = await fetch_one(
        tx,
        """INSERT INTO branches (project_id, name, description, parent_id, parent_at, created_by)
           VALUES (%s, %s, %s, %s, %s, %s) RETURNING id""",
        (project_id, name, description, parent_id, parent_at, created_by),
    )
    assert row is not None
    return UUID(str(row["id"]))


async def manifest_lines(tx: Transaction, branch_id: UUID, at: int, after: str, limit: int) -> DictRow:
    """A page as JSON lines made by the server: {lines, live_rows, scanned_rows, last_key}."""
    row = await fetch_one(
        tx,
        f"""SELECT string_agg(line, E'\\n' ORDER BY path_key) AS lines, count(line) AS live_rows,
                   count(*) AS scanned_rows, max(path_key) AS last_key
            FROM (
                SELECT path_key, CASE WHEN version IS NOT NULL THEN (
                    SELECT row_to_json(r)::text FROM (SELECT path, asset_id, version, encode(sha256, 'hex') AS sha256,
                        size_bytes, from_no AS changelist_no) r) END AS line
                FROM ({_MANIFEST_PAGE}) page
            ) lines""",
        {"branch_id": branch_id, "at": at, "after": after, "limit": limit},
    )
    assert row is not None
    return row


async def diff_lines(
    tx: Transaction, left: UUID, left_at: int, right: UUID, right_at: int, after: str, limit: int
) -> DictRow:
    """A page as JSON lines made by the server: {lines, live_rows, scanned_rows, last_key}. Equal content is no line."""
    row = await fetch_one(
        tx,
        f"""SELECT string_agg(line, E'\\n' ORDER BY path_key) AS lines, count(line) AS live_rows,
                   count(*) AS scanned_rows, max(path_key) AS last_key
            FROM (
                SELECT path_key, CASE WHEN left_sha256 IS DISTINCT FROM right_sha256 THEN json_build_object(
                    'path', path,
                    'change', CASE WHEN left_version IS NULL THEN 'added' WHEN right_version IS NULL THEN 'removed'
                                   ELSE 'changed' END,
                    'left', CASE WHEN left_version IS NOT NULL THEN json_build_object('version', left_version,
                        'sha256', encode(left_sha256, 'hex'), 'size_bytes', left_size_bytes) END,
                    'right', CASE WHEN right_version IS NOT NULL THEN json_build_object('version', right_version,
                        'sha256', encode(right_sha256, 'hex'), 'size_bytes', right_size_bytes) END)::text END AS line
                FROM ({_DIFF_PAGE}) page
            ) lines""",
        {"left": left, "left_at": left_at, "right": right, "right_at": right_at, "after": after, "limit": limit},
    )
    assert row is not None
    return row


async def update_branch(tx: Transaction, branch_id: UUID, changes: dict[str, Any]) -> None:
    """`changes` has every column that can change; None leaves it as it is."""
    await tx.execute(
        """UPDATE branches SET description = coalesce(%(description)s, description),
               submit_role = coalesce(%(submit_role)s, submit_role),
               require_review = coalesce(%(require_review)s, require_review),
               require_validation = coalesce(%(require_validation)s, require_validation),
               approve_role = coalesce(%(approve_role)s, approve_role),
               required_approvals = coalesce(%(required_approvals)s, required_approvals)
           WHERE id = %(id)s""",
        {**changes, "id": branch_id},
    )


async def label(tx: Transaction, project_id: UUID, name: str) -> DictRow | None:
    return await fetch_one(tx, _LABEL + "WHERE project_id = %s AND lower(name) = lower(%s)", (project_id, name))


async def labels(tx: Transaction, project_id: UUID, after: str, limit: int) -> list[DictRow]:
    return await fetch_all(
        tx,
        _LABEL + "WHERE project_id = %s AND lower(name) > %s ORDER BY lower(name) LIMIT %s",
        (project_id, after, limit),
    )


async def set_label(
    tx: Transaction, project_id: UUID, name: str, branch_id: UUID, at_no: int, created_by: UUID
) -> DictRow:
    """Made, or moved when it is there."""
    row = await fetch_one(
        tx,
        """INSERT INTO labels (project_id, name, branch_id, at_no, created_by) VALUES (%s, %s, %s, %s, %s)
           ON CONFLICT (project_id, lower(name)) DO UPDATE SET branch_id = excluded.branch_id, at_no = excluded.at_no
           RETURNING project_id, name, branch_id, at_no AS at, created_by, created_at""",
        (project_id, name, branch_id, at_no, created_by),
    )
    assert row is not None
    return row


async def delete_label(tx: Transaction, project_id: UUID, name: str) -> None:
    await tx.execute("DELETE FROM labels WHERE project_id = %s AND lower(name) = lower(%s)", (project_id, name))
