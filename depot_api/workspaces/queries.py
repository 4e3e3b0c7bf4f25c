"""SQL of workspaces: have-lists, and what they differ in from a point of a branch."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from psycopg.rows import DictRow

from depot_api.database.pool import Transaction, fetch_all, fetch_one

_COLUMNS = """id, project_id, branch_id, owner_id, name, include, exclude, at_no, since_no,
              since_no IS NOT DISTINCT FROM at_no AS is_complete, created_at"""

# `wanted` is what the branch holds and the patterns let through.
_INCLUDED = """(%(include)s::text IS NULL OR path_key ~ %(include)s)
               AND (%(exclude)s::text IS NULL OR path_key !~ %(exclude)s)"""

# Every path of the branch and of the have-list, a page in path order. Both sides are cut off after `limit` rows, so the
# page ends where the first of them was cut off; last_key is null when neither was.
_ALL_COMPARED = """
    WITH page AS MATERIALIZED (
        SELECT * FROM branch_manifest(%(branch_id)s, %(at)s, %(after)s, %(limit)s)),
    had AS MATERIALIZED (
        SELECT path_key, path, asset_id, version FROM workspace_files
        WHERE workspace_id = %(workspace_id)s AND path_key > %(after)s ORDER BY path_key LIMIT %(limit)s),
    page_end AS MATERIALIZED (
        SELECT least((SELECT max(path_key) FROM page HAVING count(*) = %(limit)s),
                     (SELECT max(path_key) FROM had HAVING count(*) = %(limit)s)) AS last_key)
    SELECT path_key, coalesce(p.path, h.path) AS path, coalesce(p.asset_id, h.asset_id) AS asset_id,
           p.version, p.sha256, p.size_bytes, h.version AS have_version, e.last_key
    FROM page p FULL JOIN had h USING (path_key) CROSS JOIN page_end e
    WHERE e.last_key IS NULL OR path_key <= e.last_key
"""

# A head moves only where a row was inserted, on the branch or on an ancestor as far as the branch sees it. The index by
# changelist serves only who says from_no > 0.
_TOUCHED = """
    SELECT b.path_key FROM branch_lineage l CROSS JOIN LATERAL (
        SELECT path_key FROM branch_heads
        WHERE branch_id = l.ancestor_id AND from_no > 0
          AND from_no > %(low)s AND from_no <= least(l.upto_no, %(high)s)
        ORDER BY from_no LIMIT %(limit)s) b
    WHERE l.branch_id = %(branch_id)s
"""

_TOUCHED_COMPARED = f"""
    SELECT t.path_key, coalesce(h.path, f.path) AS path, coalesce(h.asset_id, f.asset_id) AS asset_id,
           h.version, h.sha256, h.size_bytes, f.version AS have_version
    FROM (SELECT DISTINCT path_key FROM ({_TOUCHED}) touched) t
    LEFT JOIN LATERAL branch_head(%(branch_id)s, t.path_key, %(at)s) h ON true
    LEFT JOIN LATERAL (
        SELECT path, asset_id, version FROM workspace_files
        WHERE workspace_id = %(workspace_id)s AND path_key = t.path_key OFFSET 0) f ON true
"""

_ACKNOWLEDGED = "unnest(%(keys)s::text[], %(paths)s::text[], %(versions)s::int[]) AS a (path_key, path, version)"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A have-list against a point of a branch, within patterns that are regular expressions here."""

    workspace_id: UUID
    branch_id: UUID
    at: int
    include: str | None
    exclude: str | None

    def parameters(self) -> dict[str, object]:
        return {
            "workspace_id": self.workspace_id,
            "branch_id": self.branch_id,
            "at": self.at,
            "include": self.include,
            "exclude": self.exclude,
        }


@dataclass(frozen=True, slots=True)
class Files:
    """Paths, each with the version that a workspace has; none where it has none."""

    keys: list[str]
    paths: list[str]
    versions: list[int | None]

    def parameters(self) -> dict[str, object]:
        return {"keys": self.keys, "paths": self.paths, "versions": self.versions}


async def insert_workspace(
    tx: Transaction,
    project_id: UUID,
    branch_id: UUID,
    owner_id: UUID,
    name: str,
    include: Sequence[str],
    exclude: Sequence[str],
) -> DictRow:
    row = await fetch_one(
        tx,
        f"""INSERT INTO workspaces (project_id, branch_id, owner_id, name, include, exclude)
            VALUES (%s, %s, %s, %s, %s, %s) RETURNING {_COLUMNS}""",
        (project_id, branch_id, owner_id, name, list(include), list(exclude)),
    )
    assert row is not None
    return row


async def workspace(tx: Transaction, workspace_id: UUID) -> DictRow | None:
    return await fetch_one(tx, f"SELECT {_COLUMNS} FROM workspaces WHERE id = %s", (workspace_id,))


async def lock_workspace(tx: Transaction, workspace_id: UUID) -> DictRow | None:
    """Acknowledgements of one workspace come one after the other."""
    return await fetch_one(tx, f"SELECT {_COLUMNS} FROM workspaces WHERE id = %s FOR UPDATE", (workspace_id,))


async def workspaces(tx: Transaction, project_id: UUID, after: str, limit: int) -> list[DictRow]:
    return await fetch_all(
        tx,
        f"""SELECT {_COLUMNS} FROM workspaces
            WHERE project_id = %s AND owner_id = app_user_id() AND name > %s ORDER BY name LIMIT %s""",
        (project_id, after, limit),
    )


async def update_mapping(
    tx: Transaction, workspace_id: UUID, branch_id: UUID, include: Sequence[str], exclude: Sequence[str]
) -> DictRow:
    """Nothing is then known of how the have-list compares."""
    row = await fetch_one(
        tx,
        f"""UPDATE workspaces SET branch_id = %s, include = %s, exclude = %s, since_no = NULL
            WHERE id = %s RETURNING {_COLUMNS}""",
        (branch_id, list(include), list(exclude), workspace_id),
    )
    assert row is not None
    return row


async def delete_workspace(tx: Transaction, workspace_id: UUID) -> None:
    await tx.execute("DELETE FROM workspaces WHERE id = %s", (workspace_id,))


async def files(tx: Transaction, workspace_id: UUID, after: str, limit: int) -> list[DictRow]:
    return await fetch_all(
        tx,
        """SELECT path_key, path, asset_id, version FROM workspace_files
           WHERE workspace_id = %s AND path_key > %s ORDER BY path_key LIMIT %s""",
        (workspace_id, after, limit),
    )


async def unknown_versions(tx: Transaction, project_id: UUID, had: Files) -> list[DictRow]:
    return await fetch_all(
        tx,
        f"""SELECT a.path, a.version FROM {_ACKNOWLEDGED}
            WHERE a.version IS NOT NULL AND NOT EXISTS (
                SELECT FROM assets s JOIN asset_versions v ON v.asset_id = s.id AND v.number = a.version
                WHERE s.project_id = %(project_id)s AND s.path_key = a.path_key)
            ORDER BY a.path LIMIT 100""",
        {"project_id": project_id, **had.parameters()},
    )


async def correct_files(tx: Transaction, project_id: UUID, workspace_id: UUID, had: Files) -> None:
    """The have-list becomes what is really had; nothing is then known of how it compares."""
    changed = await _put_files(
        tx,
        """SELECT s.path_key, s.path, s.id AS asset_id FROM assets s
           WHERE s.project_id = %(project_id)s AND s.path_key = a.path_key OFFSET 0""",
        {"project_id": project_id, "workspace_id": workspace_id, **had.parameters()},
    )
    removed = await remove_files(tx, workspace_id, had)
    if changed or removed:
        await tx.execute("UPDATE workspaces SET since_no = NULL WHERE id = %s", (workspace_id,))


async def unlike_the_branch(tx: Transaction, comparison: Comparison, had: Files) -> list[DictRow]:
    """Files that are not what the branch and the patterns give at that point: {path, version, expected_version}."""
    return await fetch_all(
        tx,
        f"""SELECT a.path, a.version, w.expected_version FROM {_ACKNOWLEDGED}
            LEFT JOIN LATERAL branch_head(%(branch_id)s, a.path_key, %(at)s) h ON true
            CROSS JOIN LATERAL (SELECT CASE WHEN {_INCLUDED.replace("path_key", "a.path_key")} THEN h.version END) w
                (expected_version)
            WHERE a.version IS DISTINCT FROM w.expected_version ORDER BY a.path LIMIT 100""",
        comparison.parameters() | had.parameters(),
    )


async def put_files(tx: Transaction, project_id: UUID, comparison: Comparison, had: Files) -> int:
    """How many of the have-list's files are other ones then."""
    return await _put_files(
        tx,
        "SELECT path_key, path, asset_id FROM branch_head(%(branch_id)s, a.path_key, %(at)s)",
        comparison.parameters() | had.parameters() | {"project_id": project_id},
    )


async def _put_files(tx: Transaction, asset_query: str, parameters: dict[str, object]) -> int:
    cursor = await tx.execute(
        f"""INSERT INTO workspace_files (project_id, workspace_id, path_key, path, asset_id, version)
            SELECT %(project_id)s, %(workspace_id)s, s.path_key, s.path, s.asset_id, a.version
            FROM {_ACKNOWLEDGED} CROSS JOIN LATERAL ({asset_query}) s WHERE a.version IS NOT NULL
            ON CONFLICT (workspace_id, path_key) DO UPDATE SET path = excluded.path, asset_id = excluded.asset_id,
                version = excluded.version WHERE workspace_files.version <> excluded.version""",
        parameters,
    )
    return cursor.rowcount


async def remove_files(tx: Transaction, workspace_id: UUID, had: Files) -> int:
    cursor = await tx.execute(
        "DELETE FROM workspace_files WHERE workspace_id = %s AND path_key = ANY (%s)",
        (workspace_id, [key for key, version in zip(had.keys, had.versions, strict=True) if version is None]),
    )
    return cursor.rowcount


async def widen_range(tx: Transaction, workspace_id: UUID, at: int) -> None:
    """Some paths are now as of `at`, others are not yet."""
    await tx.execute(
        """UPDATE workspaces SET at_no = CASE WHEN since_no IS NULL THEN %(at)s ELSE greatest(at_no, %(at)s) END,
               since_no = CASE WHEN since_no IS NOT NULL THEN least(since_no, %(at)s) END
           WHERE id = %(id)s""",
        {"id": workspace_id, "at": at},
    )


async def complete_at(tx: Transaction, workspace_id: UUID, at: int) -> None:
    await tx.execute("UPDATE workspaces SET at_no = %(at)s, since_no = %(at)s WHERE id = %(id)s",
                     {"id": workspace_id, "at": at})  # fmt: skip


# Differences ----------------------------------------------------------------------------------------------------------


async def touched_rows(tx: Transaction, branch_id: UUID, low: int, high: int, limit: int) -> int:
    """How many heads came to be in (low, high]; no more than `limit` on each branch of the lineage are counted."""
    row = await fetch_one(
        tx,
        f"SELECT count(*) AS touched FROM ({_TOUCHED}) touched",
        {"branch_id": branch_id, "low": low, "high": high, "limit": limit},
    )
    assert row is not None
    return int(row["touched"])


async def touched_differences(tx: Transaction, comparison: Comparison, low: int, high: int, limit: int) -> DictRow:
    """What differs among paths touched in (low, high], as JSON lines made by the server: {lines, rows}."""
    parameters = comparison.parameters() | {"low": low, "high": high, "limit": limit}
    return await _differences(tx, _TOUCHED_COMPARED, "NULL::text", parameters)


async def differences(tx: Transaction, comparison: Comparison, after: str, limit: int) -> DictRow:
    """A page of what differs, as JSON lines: {lines, rows, last_key}; last_key is null on the last page."""
    parameters = comparison.parameters() | {"after": after, "limit": limit}
    return await _differences(tx, _ALL_COMPARED, "max(last_key)", parameters)


async def _differences(tx: Transaction, compared: str, last_key: str, parameters: dict[str, object]) -> DictRow:
    row = await fetch_one(
        tx,
        f"""SELECT string_agg(line, E'\\n' ORDER BY path_key) AS lines, count(line) AS rows, {last_key} AS last_key
            FROM (
                SELECT *, CASE WHEN wanted AND have_version = version OR NOT wanted AND have_version IS NULL THEN NULL
                    ELSE (SELECT row_to_json(r)::text FROM (SELECT
                        CASE WHEN NOT wanted THEN 'remove' WHEN have_version IS NULL THEN 'fetch' ELSE 'replace' END
                            AS action,
                        path, asset_id, have_version, CASE WHEN wanted THEN version END AS version,
                        CASE WHEN wanted THEN encode(sha256, 'hex') END AS sha256,
                        CASE WHEN wanted THEN size_bytes END AS size_bytes) r) END AS line
                FROM (SELECT *, version IS NOT NULL AND {_INCLUDED} AS wanted FROM ({compared}) compared) judged
            ) lines""",
        parameters,
    )
    assert row is not None
    return row


# Activity -------------------------------------------------------------------------------------------------------------


async def insert_activity(
    tx: Transaction, workspace_id: UUID, kind: str, updated_files: int = 0, removed_files: int = 0
) -> None:
    await tx.execute(
        """INSERT INTO workspace_activity (project_id, workspace_id, workspace_name, user_id, kind, branch_id, at_no,
                                           updated_files, removed_files)
           SELECT project_id, id, name, owner_id, %s, branch_id, at_no, %s, %s FROM workspaces WHERE id = %s""",
        (kind, updated_files, removed_files, workspace_id),
    )


async def activity_of_project(tx: Transaction, project_id: UUID, before: int | None, limit: int) -> list[DictRow]:
    return await _activity(tx, "a.project_id = %(of)s", project_id, before, limit)


async def activity_of_workspace(tx: Transaction, workspace_id: UUID, before: int | None, limit: int) -> list[DictRow]:
    return await _activity(tx, "a.workspace_id = %(of)s", workspace_id, before, limit)


async def _activity(tx: Transaction, condition: str, of: UUID, before: int | None, limit: int) -> list[DictRow]:
    return await fetch_all(
        tx,
        f"""SELECT a.id, a.workspace_id, a.workspace_name, a.user_id, u.username, a.kind, a.branch_id, a.at_no,
                   a.updated_files, a.removed_files, a.created_at
            FROM workspace_activity a JOIN users u ON u.id = a.user_id
            WHERE {condition} AND (%(before)s::bigint IS NULL OR a.id < %(before)s)
            ORDER BY a.id DESC LIMIT %(limit)s""",
        {"of": of, "before": before, "limit": limit},
    )
