"""SQL of merges, their conflicts and their jobs."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from depot_api.database.pool import Transaction, fetch_all, fetch_one
from depot_api.merges.bases import Point
from depot_api.merges.decide import Version

# Keys in one statement: bounds what one answer holds in memory.
BATCH_KEYS = 20_000
Key = TypeVar("Key", str, "_Left")

# Planning -----------------------------------------------------------------------------------------------------------


async def forks(tx: Transaction, project_id: UUID) -> list[DictRow]:
    return await fetch_all(tx, "SELECT id, parent_id, parent_at FROM branches WHERE project_id = %s", (project_id,))


async def landed(tx: Transaction, project_id: UUID) -> list[DictRow]:
    """In the order in which they landed."""
    return await fetch_all(
        tx,
        """SELECT source_branch_id, source_at, target_branch_id, landed_no FROM branch_merges
           WHERE project_id = %s AND status = 'merged' ORDER BY landed_no, completed_at""",
        (project_id,),
    )


async def touched(tx: Transaction, left: Point, right: Point) -> set[str]:
    """Keys of the paths that the two points may show differently."""
    query = "SELECT path_key FROM branch_touched(%s, %s, %s, %s)"
    return {row["path_key"] for row in await fetch_all(tx, query, (*left, *right))}


async def heads(tx: Transaction, point: Point, keys: Iterable[str]) -> dict[str, Version]:
    """What lives at the paths, by key. An absent one is left out."""
    found: dict[str, Version] = {}
    async with tx.cursor(row_factory=lambda _: Version._make, binary=True) as cursor:  # a quarter of the time less
        for batch in _batches(keys):
            await cursor.execute(_HEADS, (batch, *point))
            found |= {version.key: version for version in await cursor.fetchall()}
    return found


_HEADS = """
    SELECT h.path_key AS key, h.path, h.version AS number, h.sha256, h.size_bytes
    FROM unnest(%b::text[]) AS asked (key) CROSS JOIN LATERAL branch_head(%s, asked.key, %s) h
    WHERE h.version IS NOT NULL
"""


def _batches(keys: Iterable[Key]) -> Iterable[list[Key]]:
    listed = sorted(keys)
    return (listed[start : start + BATCH_KEYS] for start in range(0, len(listed), BATCH_KEYS))


class _Left(NamedTuple):
    """A path, the changelist in which the file of `origin` left it, and the path that was asked about."""

    key: str
    no: int
    origin: str


# In place of a number: the changelist in which what lived there last went away.
LAST = 0


async def moved_to(tx: Transaction, project_id: UUID, point: Point, keys: Iterable[str]) -> dict[str, Version]:
    """Of paths that are gone: where a move took the file that was there last, and what it is now.

    Followed from move to move in the order of time: a path that it has left may be another file's since.
    """
    found: dict[str, Version] = {}
    left = [_Left(key, LAST, key) for key in keys]
    while left:
        left_again: list[_Left] = []
        for batch in _batches(left):
            asked, numbers, origins = map(list, zip(*batch, strict=True))
            parameters = {"keys": asked, "numbers": numbers, "origins": origins, "project": project_id}
            for row in await fetch_all(tx, _MOVED_TO, {**parameters, "branch": point.branch_id, "at": point.at}):
                if row["left_no"] is not None:
                    left_again.append(_Left(row["moved_to"], row["left_no"], row["origin"]))
                else:
                    found[row["origin"]] = Version(
                        row["moved_to"], row["path"], row["version"], row["sha256"], row["size_bytes"]
                    )
        left = left_again
    return found


_MOVED_TO = """
    SELECT asked.origin, i.path_key AS moved_to, again.from_no AS left_no, h.path, h.version, h.sha256, h.size_bytes
    FROM unnest(%(keys)s::text[], %(numbers)s::bigint[], %(origins)s::text[]) AS asked (key, no, origin)
    CROSS JOIN LATERAL (
        SELECT CASE WHEN asked.no > 0 THEN asked.no ELSE (
            SELECT from_no FROM branch_head(%(branch)s, asked.key, %(at)s) WHERE version IS NULL) END AS no
        OFFSET 0) went
    CROSS JOIN LATERAL (
        SELECT id FROM changelists WHERE project_id = %(project)s AND number = went.no OFFSET 0) c
    CROSS JOIN LATERAL (
        SELECT path_key FROM changelist_items WHERE changelist_id = c.id AND moved_from_key = asked.key LIMIT 1) i
    LEFT JOIN LATERAL (
        SELECT min(b.from_no) AS from_no FROM branch_lineage l CROSS JOIN LATERAL (
            SELECT from_no FROM branch_heads
            WHERE branch_id = l.ancestor_id AND path_key = i.path_key AND version IS NULL
              AND from_no > went.no AND from_no <= least(l.upto_no, %(at)s)
            ORDER BY from_no LIMIT 1) b
        WHERE l.branch_id = %(branch)s) again ON true
    LEFT JOIN LATERAL branch_head(%(branch)s, i.path_key, %(at)s) h ON again.from_no IS NULL
"""


class Lineage(NamedTuple):
    """A version's content, and the versions of its path that it was made from: its base, and what it integrated."""

    sha256: bytes
    parents: tuple[int | None, int | None]


async def integrated_ancestry(tx: Transaction, project_id: UUID, keys: Iterable[str]) -> dict[str, dict[int, Lineage]]:
    """Of the paths that somebody, and not a merge, has integrated: all versions, by path key and number."""
    found: dict[str, dict[int, Lineage]] = {}
    for batch in _batches(keys):
        for row in await fetch_all(tx, _ANCESTRY, {"project": project_id, "keys": batch}):
            versions = found.setdefault(row["path_key"], {})
            versions[row["number"]] = Lineage(row["sha256"], (row["base_version"], row["source_version"]))
    return found


_ANCESTRY = """
    SELECT a.path_key, v.number, v.sha256, i.base_version, v.source_version
    FROM unnest(%(keys)s::text[]) AS asked (key)
    CROSS JOIN LATERAL (
        SELECT id, path_key FROM assets WHERE project_id = %(project)s AND path_key = asked.key OFFSET 0) a
    JOIN LATERAL (
        SELECT number, sha256, changelist_id, source_version FROM asset_versions WHERE asset_id = a.id OFFSET 0
    ) v ON true
    JOIN LATERAL (
        SELECT base_version FROM changelist_items WHERE changelist_id = v.changelist_id AND path_key = a.path_key
        OFFSET 0) i ON true
    WHERE EXISTS (
        SELECT FROM asset_versions s WHERE s.asset_id = a.id AND s.source_version IS NOT NULL
          AND NOT EXISTS (SELECT FROM branch_merges m WHERE m.changelist_id = s.changelist_id))
"""


# Merges -------------------------------------------------------------------------------------------------------------

_MERGE = """
    SELECT m.id, m.project_id, m.source_branch_id, m.target_branch_id, m.source_at, m.target_at, m.status,
           m.description, m.merge_text, m.changelist_id, m.paths_count, m.size_bytes, m.landed_no, m.shelf_id,
           m.created_by,
           u.username AS creator, m.created_at, m.completed_at, m.cancelled_at, n.conflicts_count, n.unresolved_count
    FROM branch_merges m JOIN users u ON u.id = m.created_by CROSS JOIN LATERAL count_conflicts(m.id) n
"""


async def insert_merge(
    tx: Transaction,
    project_id: UUID,
    source: Point,
    target_branch_id: UUID,
    description: str,
    merge_text: bool,
    changelist_id: UUID,
    created_by: UUID,
) -> UUID:
    row = await fetch_one(
        tx,
        """INSERT INTO branch_merges (project_id, source_branch_id, source_at, target_branch_id, description,
                                      merge_text, changelist_id, created_by)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s) RETURNING id""",
        (project_id, *source, target_branch_id, description, merge_text, changelist_id, created_by),
    )
    assert row is not None
    return UUID(str(row["id"]))


async def merge(tx: Transaction, merge_id: UUID) -> DictRow | None:
    return await fetch_one(tx, _MERGE + "WHERE m.id = %s", (merge_id,))


async def lock_merge(tx: Transaction, merge_id: UUID) -> None:
    """The first that any change of a merge takes, so that none of them deadlock."""
    await tx.execute("SELECT hold_merge(%s)", (merge_id,))


async def merges(
    tx: Transaction, project_id: UUID, statuses: Sequence[str], before: UUID | None, limit: int
) -> list[DictRow]:
    """Newest first."""
    return await fetch_all(
        tx,
        _MERGE
        + """WHERE m.project_id = %(project)s AND m.status = ANY (%(statuses)s::merge_status[])
               AND (%(before)s::uuid IS NULL OR m.id < %(before)s)
             ORDER BY m.id DESC LIMIT %(limit)s""",
        {"project": project_id, "statuses": list(statuses), "before": before, "limit": limit},
    )


async def set_planned(tx: Transaction, merge_id: UUID, target_at: int, paths_count: int, size_bytes: int) -> None:
    await tx.execute(
        "UPDATE branch_merges SET target_at = %s, paths_count = %s, size_bytes = %s WHERE id = %s",
        (target_at, paths_count, size_bytes, merge_id),
    )


async def settle_status(tx: Transaction, merge_id: UUID) -> str:
    """Conflicted while a conflict is unresolved, else pending."""
    row = await fetch_one(
        tx,
        """UPDATE branch_merges m SET status = CASE WHEN EXISTS (
               SELECT FROM merge_conflicts c WHERE c.merge_id = m.id AND c.resolution IS NULL)
               THEN 'conflicted' ELSE 'pending' END::merge_status
           WHERE m.id = %s RETURNING m.status""",
        (merge_id,),
    )
    assert row is not None
    return str(row["status"])


async def set_merged(tx: Transaction, merge_id: UUID, landed_no: int) -> None:
    await tx.execute(
        "UPDATE branch_merges SET status = 'merged', landed_no = %s, completed_at = now() WHERE id = %s",
        (landed_no, merge_id),
    )


async def set_cancelled(tx: Transaction, merge_id: UUID) -> None:
    """What was staged, and the open jobs, go with it (drop_staged)."""
    await tx.execute("UPDATE branch_merges SET status = 'cancelled', cancelled_at = now() WHERE id = %s", (merge_id,))


async def link_shelf(tx: Transaction, merge_id: UUID, shelf_id: UUID) -> None:
    await tx.execute("UPDATE branch_merges SET shelf_id = %s WHERE id = %s", (shelf_id, merge_id))


async def delete_shelf(tx: Transaction, merge_id: UUID) -> None:
    await tx.execute("DELETE FROM shelves WHERE id = (SELECT shelf_id FROM branch_merges WHERE id = %s)", (merge_id,))


async def lock_target(tx: Transaction, branch_id: UUID) -> int | None:
    """The branch's head, which then stays until the transaction ends. None when nothing may be written there."""
    row = await fetch_one(
        tx,
        """SELECT greatest(head_no, coalesce(parent_at, 0)) AS head_no FROM branches WHERE id = %s
           FOR NO KEY UPDATE""",
        (branch_id,),
    )
    return int(row["head_no"]) if row else None


async def land_nothing(tx: Transaction, project_id: UUID, branch_id: UUID) -> int:
    """A number of its own, though no changelist has it: what the branch knew before and what it knows now differ."""
    row = await fetch_one(
        tx,
        """WITH next AS (UPDATE changelist_counters SET last_no = last_no + 1 WHERE project_id = %s RETURNING last_no)
           UPDATE branches SET head_no = next.last_no FROM next WHERE id = %s RETURNING head_no""",
        (project_id, branch_id),
    )
    assert row is not None
    return int(row["head_no"])


# Conflicts ----------------------------------------------------------------------------------------------------------

_CONFLICT = """
    SELECT c.id, c.project_id, c.merge_id, c.path_key, c.path, c.kind, c.base_path, c.source_path, c.target_path,
           c.mergeable, c.base_version, c.base_sha256, c.source_version, c.source_sha256, c.target_version,
           c.target_sha256, c.resolution, c.resolved_sha256, c.resolved_by, c.resolved_at, c.reason
    FROM merge_conflicts c
"""
_CONFLICT_COLUMNS = """path_key, path, kind, base_path, source_path, target_path, mergeable, base_version, base_sha256,
    source_version, source_sha256, target_version, target_sha256"""
_CONFLICT_ROWS = f"""unnest(%s::text[], %s::text[], %s::merge_conflict_kind[], %s::depot_path[], %s::depot_path[],
    %s::depot_path[], %s::boolean[], %s::int[], %s::bytea[], %s::int[], %s::bytea[], %s::int[], %s::bytea[], %s::text[],
    %s::text[], %s::text[])
    AS w ({_CONFLICT_COLUMNS}, base_key, source_key, target_key)"""
_CONFLICT_ROW_COLUMNS = 16


async def replace_conflicts(tx: Transaction, project_id: UUID, merge_id: UUID, rows: Sequence[tuple[Any, ...]]) -> None:
    """`rows` are in the order of _CONFLICT_ROWS. One that is the same as before keeps what was chosen for it."""
    columns = [list(column) for column in zip(*rows, strict=True)] or [[]] * _CONFLICT_ROW_COLUMNS
    await tx.execute(
        f"""DELETE FROM merge_conflicts c WHERE c.merge_id = %s AND NOT EXISTS (
                SELECT FROM {_CONFLICT_ROWS} WHERE w.path_key = c.path_key
                  AND (w.kind, w.base_path, w.base_sha256, w.source_path, w.source_sha256, w.target_path,
                       w.target_sha256)
                      IS NOT DISTINCT FROM (c.kind, c.base_path, c.base_sha256, c.source_path, c.source_sha256,
                       c.target_path, c.target_sha256))""",
        (merge_id, *columns),
    )
    await tx.execute(
        f"""INSERT INTO merge_conflicts (project_id, merge_id, {_CONFLICT_COLUMNS}, path_keys)
            SELECT %s, %s, {_CONFLICT_COLUMNS}, array_remove(ARRAY[path_key, base_key, source_key, target_key], NULL)
            FROM {_CONFLICT_ROWS} ON CONFLICT (merge_id, path_key) DO NOTHING""",
        (project_id, merge_id, *columns),
    )


async def conflicts(
    tx: Transaction, merge_id: UUID, after: str, limit: int, *, unresolved: bool = False
) -> list[DictRow]:
    return await fetch_all(
        tx,
        _CONFLICT
        + """WHERE c.merge_id = %s AND c.path_key > %s AND (NOT %s OR c.resolution IS NULL)
             ORDER BY c.path_key LIMIT %s""",
        (merge_id, after, unresolved, limit),
    )


async def unresolved(tx: Transaction, merge_id: UUID) -> list[DictRow]:
    """By path."""
    return await fetch_all(
        tx, _CONFLICT + "WHERE c.merge_id = %s AND c.resolution IS NULL ORDER BY c.path_key", (merge_id,)
    )


async def conflict(tx: Transaction, conflict_id: UUID) -> DictRow | None:
    return await fetch_one(tx, _CONFLICT + "WHERE c.id = %s", (conflict_id,))


async def choices(tx: Transaction, merge_id: UUID) -> list[DictRow]:
    """{path_key, resolution, resolved_sha256} of the conflicts that have been resolved."""
    return await fetch_all(
        tx,
        """SELECT path_key, resolution, resolved_sha256 FROM merge_conflicts
           WHERE merge_id = %s AND resolution IS NOT NULL""",
        (merge_id,),
    )


async def resolve(
    tx: Transaction,
    merge_id: UUID,
    path_keys: Collection[str],
    resolution: str,
    sha256: bytes | None,
    resolved_by: UUID,
    reason: str,
) -> set[str]:
    """The keys that the asker may resolve, and now are."""
    rows = await fetch_all(
        tx,
        """UPDATE merge_conflicts SET resolution = %s, resolved_sha256 = %s, resolved_by = %s, resolved_at = now(),
               reason = %s
           WHERE merge_id = %s AND path_key = ANY (%s) RETURNING path_key""",
        (resolution, sha256, resolved_by, reason, merge_id, list(path_keys)),
    )
    return {row["path_key"] for row in rows}


async def keys_matching(tx: Transaction, merge_id: UUID, regex: str, unresolved: bool) -> list[str]:
    rows = await fetch_all(
        tx,
        """SELECT path_key FROM merge_conflicts
           WHERE merge_id = %s AND path_key ~ %s AND (NOT %s OR resolution IS NULL) ORDER BY path_key""",
        (merge_id, regex, unresolved),
    )
    return [row["path_key"] for row in rows]


async def refer_to(tx: Transaction, project_id: UUID, sha256: bytes) -> None:
    """Content that a person supplied. A trigger refuses what they have not sent."""
    await tx.execute(
        "INSERT INTO project_blobs (project_id, sha256) VALUES (%s, %s) ON CONFLICT DO NOTHING", (project_id, sha256)
    )


async def resolutions(tx: Transaction, merge_id: UUID, path_key: str) -> list[DictRow]:
    """Oldest first."""
    return await fetch_all(
        tx,
        """SELECT r.resolution, r.sha256, r.reason, u.username AS resolved_by, r.resolved_at
           FROM merge_resolutions r JOIN users u ON u.id = r.resolved_by
           WHERE r.merge_id = %s AND r.path_key = %s ORDER BY r.id""",
        (merge_id, path_key),
    )


async def authors(tx: Transaction, project_id: UUID, versions: Sequence[tuple[str, int]]) -> list[str]:
    """Who made these versions, which are (path_key, number)."""
    keys, numbers = zip(*versions, strict=True)
    rows = await fetch_all(
        tx,
        """SELECT DISTINCT u.username FROM unnest(%s::text[], %s::int[]) AS asked (key, number)
           CROSS JOIN LATERAL (SELECT id FROM assets WHERE project_id = %s AND path_key = asked.key OFFSET 0) a
           CROSS JOIN LATERAL (
               SELECT author_id FROM asset_versions WHERE asset_id = a.id AND number = asked.number OFFSET 0) v
           JOIN users u ON u.id = v.author_id ORDER BY u.username""",
        (list(keys), list(numbers), project_id),
    )
    return [row["username"] for row in rows]


# Jobs ---------------------------------------------------------------------------------------------------------------

# What failed may name any path of the merge.
_JOB = """id, project_id, merge_id, job_type, status, submit_gate_passed, attempt, fencing_number, executor,
          leased_until, available_at, result, created_at, finished_at,
          CASE WHEN error = '' OR project_id <> ALL ((SELECT restricted_projects())::uuid[]) THEN error
               ELSE 'Told to those who may see every path. Ask a manager of the project.' END AS error"""

# Free, or left by an executor that died; and nothing of the same merge has to be done before.
_CLAIMABLE = """
    (j.status = 'queued' AND j.available_at <= now() OR j.status = 'running' AND j.leased_until <= now())
    AND NOT EXISTS (
        SELECT FROM merge_jobs o WHERE o.merge_id = j.merge_id AND o.job_type < j.job_type AND (
            o.status IN ('queued', 'running', 'failed') OR o.status = 'staged' AND j.job_type = 'submit_gate'))
"""


async def queue_job(tx: Transaction, project_id: UUID, merge_id: UUID, job_type: str, *, anew: str) -> DictRow:
    """The merge's job of that type, which is made when it is not there, and begins anew when its status is `anew`."""
    row = await fetch_one(
        tx,
        f"""INSERT INTO merge_jobs AS j (project_id, merge_id, job_type) VALUES (%(project)s, %(merge)s, %(type)s)
            ON CONFLICT (merge_id, job_type) DO UPDATE SET
                status = CASE j.status WHEN %(anew)s THEN 'queued' ELSE j.status END,
                attempt = CASE j.status WHEN %(anew)s THEN 0 ELSE j.attempt END,
                available_at = CASE j.status WHEN %(anew)s THEN now() ELSE j.available_at END,
                finished_at = CASE j.status WHEN %(anew)s THEN NULL ELSE j.finished_at END
            RETURNING {_JOB}""",
        {"project": project_id, "merge": merge_id, "type": job_type, "anew": anew},
    )
    assert row is not None
    return row


async def job(tx: Transaction, job_id: UUID) -> DictRow | None:
    return await fetch_one(tx, f"SELECT {_JOB} FROM merge_jobs WHERE id = %s", (job_id,))


async def jobs(tx: Transaction, merge_id: UUID) -> list[DictRow]:
    return await fetch_all(
        tx, f"SELECT {_JOB} FROM merge_jobs WHERE merge_id = %s ORDER BY created_at, id", (merge_id,)
    )


async def claimable_jobs(tx: Transaction, limit: int) -> list[DictRow]:
    """Of all projects that the asker can see, the oldest first, with the branch that it will land on."""
    return await fetch_all(
        tx,
        f"""SELECT j.id, j.project_id, j.merge_id, j.job_type, j.status, j.attempt, j.fencing_number,
                   j.available_at, m.target_branch_id
            FROM merge_jobs j JOIN branch_merges m ON m.id = j.merge_id
            WHERE j.status IN ('queued', 'running', 'staged') AND {_CLAIMABLE} ORDER BY j.created_at LIMIT %s""",
        (limit,),
    )


async def give_up_dead(tx: Transaction, max_attempts: int) -> list[DictRow]:
    """Jobs whose executor died once too often: failed. {id, project_id, merge_id}"""
    return await fetch_all(
        tx,
        """UPDATE merge_jobs SET status = 'failed', leased_until = NULL, finished_at = now(),
               error = format('The executor %%s died, as those of the attempts before did.', executor)
           WHERE id IN (SELECT id FROM merge_jobs WHERE status IN ('queued', 'running', 'staged')
                          AND status = 'running' AND leased_until <= now() AND attempt >= %s
                        FOR UPDATE SKIP LOCKED)
           RETURNING id, project_id, merge_id, error""",
        (max_attempts,),
    )


async def claim(
    tx: Transaction, executor: str, lease_seconds: int, merge_id: UUID | None, job_id: UUID | None
) -> DictRow | None:
    """The oldest that can be done now."""
    return await fetch_one(
        tx,
        f"""UPDATE merge_jobs SET status = 'running', attempt = attempt + 1, fencing_number = fencing_number + 1,
                executor = %(executor)s, leased_until = now() + make_interval(secs => %(lease)s), error = ''
            WHERE id = (
                SELECT j.id FROM merge_jobs j
                WHERE j.status IN ('queued', 'running', 'staged') AND {_CLAIMABLE}
                  AND (%(merge)s::uuid IS NULL OR j.merge_id = %(merge)s) AND (%(job)s::uuid IS NULL OR j.id = %(job)s)
                ORDER BY j.created_at, j.id FOR UPDATE SKIP LOCKED LIMIT 1)
            RETURNING {_JOB}""",
        {"executor": executor, "lease": lease_seconds, "merge": merge_id, "job": job_id},
    )


async def hold(tx: Transaction, job_id: UUID, fencing_number: int, lease_seconds: int | None = None) -> DictRow | None:
    """The job, held until the transaction ends, its lease prolonged. None when it is not the asker's any more."""
    return await fetch_one(
        tx,
        f"""UPDATE merge_jobs SET leased_until = CASE WHEN %(lease)s::int IS NULL THEN leased_until
                ELSE now() + make_interval(secs => %(lease)s::int) END
            WHERE id = %(id)s AND fencing_number = %(fencing)s AND status = 'running' AND leased_until > now()
            RETURNING {_JOB}""",
        {"id": job_id, "fencing": fencing_number, "lease": lease_seconds},
    )


async def finish_job(
    tx: Transaction, job_id: UUID, status: str, result: dict[str, Any], *, gate_passed: bool = False
) -> None:
    await tx.execute(
        """UPDATE merge_jobs SET status = %s, leased_until = NULL, result = %s, submit_gate_passed = %s, error = '',
               finished_at = CASE WHEN %s::merge_job_status = 'completed' THEN now() END
           WHERE id = %s""",
        (status, Jsonb(result), gate_passed, status, job_id),
    )


async def fail_job(tx: Transaction, job_id: UUID, error: str, retry_after_seconds: float | None) -> None:
    """Queued again after that time, or failed for good where there is none."""
    await tx.execute(
        """UPDATE merge_jobs SET leased_until = NULL, error = %(error)s,
               status = CASE WHEN %(after)s::float IS NULL THEN 'failed' ELSE 'queued' END::merge_job_status,
               finished_at = CASE WHEN %(after)s::float IS NULL THEN now() END,
               available_at = now() + make_interval(secs => coalesce(%(after)s::float, 0))
           WHERE id = %(id)s""",
        {"id": job_id, "error": error, "after": retry_after_seconds},
    )


async def queue_again(tx: Transaction, job_id: UUID) -> None:
    await tx.execute(
        """UPDATE merge_jobs SET status = 'queued', attempt = 0, available_at = now(), error = '', leased_until = NULL,
               finished_at = NULL
           WHERE id = %s""",
        (job_id,),
    )


async def hold_for_choices(tx: Transaction, merge_id: UUID) -> None:
    """What was integrated waits again for choices."""
    await tx.execute(
        "UPDATE merge_jobs SET status = 'staged' WHERE merge_id = %s AND job_type = 'auto_integrate'", (merge_id,)
    )
