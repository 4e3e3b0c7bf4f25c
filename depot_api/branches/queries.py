"""SQL of branches and of their temporal heads."""

from uuid import UUID

from psycopg.rows import DictRow

from depot_api.database.pool import Transaction, fetch_all, fetch_one

# A fresh branch has submitted nothing and shows its parent's head as of where it started.
_BRANCH = """
    SELECT id, project_id, name, description, parent_id, parent_at, created_at,
           greatest(head_no, coalesce(parent_at, 0)) AS head_no
    FROM branches
"""

_MANIFEST_PAGE = "SELECT * FROM branch_manifest(%(branch_id)s, %(at)s, %(after)s, %(limit)s)"


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
