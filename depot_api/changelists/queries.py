"""SQL of changelists and of submit."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from depot_api.changelists.models import ItemRow
from depot_api.database.pool import Transaction, fetch_all, fetch_one

_COLUMNS = """id, project_id, branch_id, author_id, status, number, description, items_count, revision, created_at,
              submitted_at"""

# One lookup per item. OFFSET 0 keeps the planner from turning it into a join, which it would do by nested scans of both
# tables while their statistics still say that they are empty (docs/adr/0005).
_ASSET_OF_ITEM = """CROSS JOIN LATERAL (
    SELECT id, path FROM assets WHERE project_id = i.project_id AND path_key = i.path_key OFFSET 0) a"""

# One range per path and ancestor; OFFSET 0 for the same reason.
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
        f"""SELECT {_COLUMNS}, EXISTS (SELECT FROM branch_merges m WHERE m.changelist_id = changelists.id) AS is_merge
            FROM changelists WHERE id = %s FOR UPDATE""",
        (changelist_id,),
    )


_WANTED = f"""SELECT {_COLUMNS} FROM changelists
    WHERE project_id = %(project_id)s AND (%(branch_id)s::uuid IS NULL OR branch_id = %(branch_id)s)
      AND (%(status)s::changelist_status IS NULL OR status = %(status)s)
      AND (%(author_id)s::uuid IS NULL OR author_id = %(author_id)s)
      AND (%(before)s::uuid IS NULL OR id < %(before)s)"""
# revision > 0 is true of every row, and says which index: the one of pages is partial (adr 0005).
_PAGE = f"{_WANTED} AND revision > 0 ORDER BY id DESC LIMIT %(limit)s"
_NUMBERED = f"{_WANTED} AND number = %(number)s"


async def changelists(
    tx: Transaction,
    project_id: UUID,
    branch_id: UUID | None,
    status: str | None,
    author_id: UUID | None,
    number: int | None,
    before: UUID | None,
    limit: int,
) -> list[DictRow]:
    """Newest first; the one of this number when it is given."""
    parameters = {
        "project_id": project_id,
        "branch_id": branch_id,
        "status": status,
        "author_id": author_id,
        "number": number,
        "before": before,
        "limit": limit,
    }
    return await fetch_all(tx, _PAGE if number is None else _NUMBERED, parameters)


async def branch_history(
    tx: Transaction, branch_id: UUID, path_key: str | None, at: int, before: int, limit: int
) -> list[DictRow]:
    """Submitted changelists that the branch shows, newest first; with a path, those that changed it."""
    touching = """SELECT from_no FROM branch_heads
        WHERE branch_id = l.ancestor_id AND path_key = %(path_key)s AND from_no <= least(l.upto_no, %(newest)s)
        ORDER BY from_no DESC LIMIT %(limit)s"""
    submitted = """SELECT number FROM changelists
        WHERE branch_id = l.ancestor_id AND status = 'submitted' AND number <= least(l.upto_no, %(newest)s)
        ORDER BY number DESC LIMIT %(limit)s"""
    return await fetch_all(
        tx,
        f"""SELECT c.* FROM (
                SELECT l.project_id, s.number
                FROM branch_lineage l CROSS JOIN LATERAL ({submitted if path_key is None else touching}) s (number)
                WHERE l.branch_id = %(branch_id)s ORDER BY s.number DESC LIMIT %(limit)s
            ) seen CROSS JOIN LATERAL (
                SELECT {_COLUMNS} FROM changelists WHERE project_id = seen.project_id AND number = seen.number OFFSET 0
            ) c ORDER BY c.number DESC""",
        {"branch_id": branch_id, "path_key": path_key, "newest": min(at, before - 1), "limit": limit},
    )


async def put_items(tx: Transaction, project_id: UUID, changelist_id: UUID, items: Sequence[ItemRow]) -> int:
    """How many items the changelist then has. The same path replaces its item."""
    await tx.execute(
        """INSERT INTO changelist_items (project_id, changelist_id, path_key, path, action, base_version, sha256,
                                         moved_from, moved_from_key, source_branch_id, source_version,
                                         lock_fencing_number)
           SELECT %s, %s, * FROM unnest(%s::text[], %s::text[], %s::item_action[], %s::int[], %s::bytea[], %s::text[],
                                        %s::text[], %s::uuid[], %s::int[], %s::bigint[])
           ON CONFLICT (changelist_id, path_key) DO UPDATE SET path = excluded.path, action = excluded.action,
               base_version = excluded.base_version, sha256 = excluded.sha256, moved_from = excluded.moved_from,
               moved_from_key = excluded.moved_from_key, source_branch_id = excluded.source_branch_id,
               source_version = excluded.source_version, lock_fencing_number = excluded.lock_fencing_number,
               validation = 'pending', validation_report = NULL""",
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
            [item.source_branch_id for item in items],
            [item.source_version for item in items],
            [item.lock_fencing_number for item in items],
        ),
    )
    count = await _count_items(tx, changelist_id)
    assert count is not None, "the project cannot be archived before these items are committed"
    return count


async def unknown_sources(tx: Transaction, project_id: UUID, items: Sequence[ItemRow], limit: int) -> list[DictRow]:
    """Those that name a version which their source branch has not, and never had: {path, version}"""
    return await fetch_all(
        tx,
        """SELECT asked.path, asked.version
           FROM unnest(%s::text[], %s::text[], %s::uuid[], %s::int[]) AS asked (path, key, branch_id, version)
           LEFT JOIN LATERAL (
               SELECT id FROM assets WHERE project_id = %s AND path_key = asked.key OFFSET 0) a ON true
           WHERE NOT was_on_branch(a.id, asked.version, asked.branch_id) ORDER BY asked.path LIMIT %s""",
        (
            [item.path for item in items],
            [item.path_key for item in items],
            [item.source_branch_id for item in items],
            [item.source_version for item in items],
            project_id,
            limit,
        ),
    )


async def remove_items(tx: Transaction, changelist_id: UUID, path_keys: Sequence[str]) -> int | None:
    """How many items the changelist then has. None when the project has been archived meanwhile."""
    await tx.execute(
        "DELETE FROM changelist_items WHERE changelist_id = %s AND path_key = ANY (%s)",
        (changelist_id, list(path_keys)),
    )
    return await _count_items(tx, changelist_id)


async def keep_items(tx: Transaction, changelist_id: UUID, path_keys: Sequence[str]) -> None:
    """Take out all other items."""
    await tx.execute(
        """DELETE FROM changelist_items i USING (
               SELECT path_key FROM changelist_items WHERE changelist_id = %(id)s
               EXCEPT SELECT unnest(%(kept)s::text[])) gone
           WHERE i.changelist_id = %(id)s AND i.path_key = gone.path_key""",
        {"id": changelist_id, "kept": list(path_keys)},
    )
    await _count_items(tx, changelist_id)


async def _count_items(tx: Transaction, changelist_id: UUID) -> int | None:
    row = await fetch_one(
        tx,
        """UPDATE changelists SET revision = revision + 1,
               items_count = count_items(%(id)s)
           WHERE id = %(id)s RETURNING items_count""",
        {"id": changelist_id},
    )
    return int(row["items_count"]) if row else None


async def items(tx: Transaction, changelist_id: UUID, after: str, limit: int) -> list[DictRow]:
    return await fetch_all(
        tx,
        """SELECT path_key, path, action, base_version, encode(sha256, 'hex') AS sha256, moved_from, source_branch_id,
                  source_version, lock_fencing_number, validation, validation_report
           FROM changelist_items WHERE changelist_id = %s AND path_key > %s ORDER BY path_key LIMIT %s""",
        (changelist_id, after, limit),
    )


async def validate_items(
    tx: Transaction, changelist_id: UUID, validations: Sequence[tuple[str, bytes | None, str, Jsonb | None]]
) -> set[str]:
    """`validations` are (path_key, sha256, status, report). Returns the keys of items that still have that content."""
    path_keys, hashes, statuses, reports = zip(*validations, strict=True)
    rows = await fetch_all(
        tx,
        """UPDATE changelist_items i SET validation = v.status, validation_report = v.report
           FROM unnest(%s::text[], %s::bytea[], %s::validation_status[], %s::jsonb[]) AS v (key, sha256, status, report)
           WHERE i.changelist_id = %s AND i.path_key = v.key AND i.sha256 IS NOT DISTINCT FROM v.sha256
           RETURNING i.path_key""",
        (list(path_keys), list(hashes), list(statuses), list(reports), changelist_id),
    )
    return {row["path_key"] for row in rows}


async def validation_counts(tx: Transaction, changelist_id: UUID) -> DictRow:
    row = await fetch_one(
        tx,
        """SELECT count(*) FILTER (WHERE validation = 'pending') AS pending,
                  count(*) FILTER (WHERE validation = 'passed') AS passed,
                  count(*) FILTER (WHERE validation = 'failed') AS failed
           FROM changelist_items WHERE changelist_id = %s""",
        (changelist_id,),
    )
    assert row is not None
    return row


async def update_changelist(
    tx: Transaction, changelist_id: UUID, branch_id: UUID | None, description: str | None
) -> DictRow | None:
    """None where it is not the asker's to change. What is None stays."""
    return await fetch_one(
        tx,
        f"""UPDATE changelists SET branch_id = coalesce(%s, branch_id), description = coalesce(%s, description),
                revision = revision + 1
            WHERE id = %s RETURNING {_COLUMNS}""",
        (branch_id, description, changelist_id),
    )


async def set_status(tx: Transaction, changelist_id: UUID, status: str) -> None:
    await tx.execute(
        "UPDATE changelists SET status = %s, revision = revision + 1 WHERE id = %s", (status, changelist_id)
    )


async def touched(tx: Transaction, branch_id: UUID, number: int) -> list[DictRow]:
    """Every path that a submitted changelist changed: what it was before, after, and is now on the branch."""
    return await fetch_all(
        tx,
        """SELECT c.path_key, c.path, c.version AS after_version, now.version AS head_version,
                  now.from_no AS head_changelist_no, before.version AS before_version,
                  before.sha256 AS before_sha256
           FROM branch_heads c
           CROSS JOIN LATERAL branch_head(%(branch)s, c.path_key) now
           LEFT JOIN LATERAL branch_head(%(branch)s, c.path_key, %(before)s) before ON true
           WHERE c.branch_id = %(branch)s AND c.from_no > 0 AND c.from_no = %(number)s ORDER BY c.path_key""",
        {"branch": branch_id, "number": number, "before": number - 1},
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
        """SELECT id, name, submit_role, require_review, require_validation, approve_role, required_approvals
           FROM branches WHERE id = %s
           FOR NO KEY UPDATE""",
        (branch_id,),
    )


async def count_visible_items(tx: Transaction, changelist_id: UUID) -> int:
    """Less than the changelist has where the rules hide a path from the asker."""
    row = await fetch_one(tx, "SELECT count(*) FROM changelist_items WHERE changelist_id = %s", (changelist_id,))
    assert row is not None
    return int(row["count"])


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
    """For each path that is a directory on the branch: the files that live in it. {directory, path, path_key}"""
    return await fetch_all(tx, _FILES_BELOW, {"keys": list(path_keys), "branch": branch_id})


async def open_gates(tx: Transaction, changelist_id: UUID, approve_role: str) -> DictRow:
    """{not_validated, approvals, objections}: of those who may approve there now, and of those who may review now."""
    row = await fetch_one(
        tx,
        """SELECT (SELECT count(*) FROM changelist_items WHERE changelist_id = %(id)s AND validation <> 'passed')
                      AS not_validated,
                  count(*) FILTER (WHERE r.verdict = 'approved' AND (m.role >= %(role)s OR u.studio_role = 'admin'))
                      AS approvals,
                  count(*) FILTER (WHERE r.verdict = 'changes_requested'
                                   AND (m.role >= 'reviewer' OR u.studio_role = 'admin')) AS objections
           FROM reviews r JOIN users u ON u.id = r.reviewer_id AND u.is_active
           LEFT JOIN project_members m ON m.project_id = r.project_id AND m.user_id = r.reviewer_id
           WHERE r.changelist_id = %(id)s""",
        {"id": changelist_id, "role": approve_role},
    )
    assert row is not None
    return row


async def next_number(tx: Transaction, project_id: UUID) -> int | None:
    """Locks the project's counter until the transaction ends: numbers are in the order of commits, without gaps.

    None when the project has been archived meanwhile.
    """
    row = await fetch_one(
        tx,
        "UPDATE changelist_counters SET last_no = last_no + 1 WHERE project_id = %s RETURNING last_no",
        (project_id,),
    )
    return int(row["last_no"]) if row else None


async def land(
    tx: Transaction,
    changelist_id: UUID,
    project_id: UUID,
    branch_id: UUID,
    author_id: UUID,
    number: int,
    *,
    removes: bool,
) -> datetime:
    """History, heads and references of every item, then the changelist itself. Returns when.

    `removes`: whether a path goes away, by a deletion or a move.
    """
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
        """WITH named AS (
               INSERT INTO assets AS a (project_id, path_key, path, last_version, created_by)
               SELECT project_id, path_key, path, 1, %(author)s FROM changelist_items
               WHERE changelist_id = %(id)s AND action <> 'delete' ORDER BY path_key
               ON CONFLICT (project_id, path_key) DO UPDATE SET last_version = a.last_version + 1
               RETURNING a.id AS asset_id, a.path_key, a.path, a.last_version AS version),
           changed AS (
               SELECT named.*, i.action, i.sha256, i.moved_from, i.source_branch_id, i.source_version
               FROM named CROSS JOIN LATERAL (
                   SELECT action, sha256, moved_from, source_branch_id, source_version FROM changelist_items
                   WHERE changelist_id = %(id)s AND path_key = named.path_key OFFSET 0) i),
           sized AS (SELECT changed.*, b.size_bytes FROM changed JOIN blobs b ON b.sha256 = changed.sha256),
           versions AS (
               INSERT INTO asset_versions (project_id, asset_id, number, sha256, size_bytes, action, branch_id,
                                           changelist_id, changelist_no, author_id, moved_from, source_branch_id,
                                           source_version)
               SELECT %(project)s, asset_id, version, sha256, size_bytes, action, %(branch)s, %(id)s, %(no)s,
                      %(author)s, moved_from, source_branch_id, source_version
               FROM sized)
           INSERT INTO branch_heads (project_id, branch_id, path_key, from_no, path, asset_id, version, sha256,
                                     size_bytes)
           SELECT %(project)s, %(branch)s, path_key, %(no)s, path, asset_id, version, sha256, size_bytes FROM sized""",
        parameters,
    )
    if removes:
        await tx.execute(
            f"""WITH moved AS MATERIALIZED (
                   SELECT a.id, origin.asset_type, origin.tags, origin.metadata
                   FROM changelist_items i {_ASSET_OF_ITEM} CROSS JOIN LATERAL (
                       SELECT asset_type, tags, metadata FROM assets
                       WHERE project_id = i.project_id AND path_key = i.moved_from_key OFFSET 0) origin
                   WHERE i.changelist_id = %(id)s AND i.action = 'move')
               UPDATE assets a SET asset_type = moved.asset_type, tags = moved.tags, metadata = moved.metadata
               FROM moved WHERE a.id = moved.id""",
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
