"""SQL of locks and typemap rules."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import DictRow

from depot_api.database.pool import Transaction, fetch_all, fetch_one

_LOCK = """
    SELECT l.id, l.project_id, l.path_key, l.path, l.holder_id, u.username AS holder, l.base_version, l.fencing_number,
           l.acquired_at, l.expires_at
    FROM locks l JOIN users u ON u.id = l.holder_id
"""
_OWN_LIVE = "l.holder_id = app_user_id() AND l.expires_at > now()"
_FOREIGN_LIVE = "l.holder_id <> app_user_id() AND l.expires_at > now()"

# One lookup per item, and two for a move. OFFSET 0 keeps the planner from turning it into a join (docs/adr/0005).
_FOREIGN_LOCKS = f"""
    SELECT held.path, held.holder_id, u.username AS holder, held.acquired_at, held.expires_at
    FROM changelist_items i
    CROSS JOIN LATERAL (
        SELECT * FROM locks l WHERE l.project_id = i.project_id AND l.path_key IN (i.path_key, i.moved_from_key)
          AND {_FOREIGN_LIVE} OFFSET 0) held
    JOIN users u ON u.id = held.holder_id
    WHERE i.changelist_id = %(changelist_id)s ORDER BY held.path
"""
_RELEASE_SUBMITTED = """
    DELETE FROM locks
    WHERE project_id = %(project_id)s AND holder_id = app_user_id() AND path_key = ANY (ARRAY(
        SELECT unnest(ARRAY[path_key, moved_from_key]) FROM changelist_items WHERE changelist_id = %(changelist_id)s))
"""

# Highest version among the living heads of all branches. Looked up only where the asker's own branch has not the
# asset's newest version already, so that the usual lock costs one lookup however many branches there are. The author's
# changelist is looked up by order, for which only one index will do, whatever statistics say.
_STALE_BASES = """
    SELECT asked.path, asked.base_version, b.name AS branch, newest.branch_id, newest.version, newest.changelist_no,
           (SELECT u.username FROM changelists c JOIN users u ON u.id = c.author_id
            WHERE c.project_id = %(project_id)s AND c.number <= newest.changelist_no
            ORDER BY c.number DESC LIMIT 1) AS author
    FROM unnest(%(path_keys)s::text[], %(paths)s::text[], %(bases)s::int[], %(project_wide)s::bool[])
        AS asked (key, path, base_version, project_wide)
    LEFT JOIN LATERAL (
        SELECT last_version FROM assets WHERE project_id = %(project_id)s AND path_key = asked.key OFFSET 0) a ON true
    LEFT JOIN LATERAL branch_head(%(branch_id)s, asked.key) head ON true
    LEFT JOIN LATERAL (
        SELECT h.branch_id, h.version, h.from_no
        FROM branches every CROSS JOIN LATERAL branch_head(every.id, asked.key) h
        WHERE asked.project_wide AND head.version IS DISTINCT FROM a.last_version
          AND every.project_id = %(project_id)s AND h.version IS NOT NULL
        ORDER BY h.version DESC LIMIT 1) other ON true
    CROSS JOIN LATERAL (
        SELECT coalesce(other.branch_id, head.branch_id) AS branch_id, coalesce(other.version, head.version) AS version,
               coalesce(other.from_no, head.from_no) AS changelist_no OFFSET 0) newest
    LEFT JOIN LATERAL (SELECT name FROM branches WHERE id = newest.branch_id OFFSET 0) b ON true
    WHERE asked.base_version IS DISTINCT FROM head.version OR head.version IS DISTINCT FROM newest.version
    ORDER BY asked.path
"""


# Granting -----------------------------------------------------------------------------------------------------------


async def hold_off_submits(tx: Transaction, project_id: UUID) -> None:
    """Until the transaction ends: a submit takes the same row for itself before it looks at locks."""
    await tx.execute("SELECT FROM changelist_counters WHERE project_id = %s FOR SHARE", (project_id,))


async def acquire(
    tx: Transaction,
    project_id: UUID,
    path_keys: Sequence[str],
    paths: Sequence[str],
    bases: Sequence[int | None],
    lease_seconds: int,
) -> list[DictRow]:
    """Take, take over or renew; with `path_key` and `is_new`. Those are left out that someone else holds.

    In the order of keys, so that two that want the same paths wait for each other instead of deadlocking. What is left
    out is locked as a row all the same, so that it is still there to be named.
    """
    return await fetch_all(
        tx,
        """WITH granted AS (
               INSERT INTO locks (project_id, path_key, path, holder_id, base_version, expires_at)
               SELECT %(project_id)s, asked.key, coalesce(a.path, asked.path), app_user_id(), asked.base_version,
                      now() + make_interval(secs => %(lease_seconds)s)
               FROM unnest(%(path_keys)s::text[], %(paths)s::text[], %(bases)s::int[])
                   AS asked (key, path, base_version)
               LEFT JOIN LATERAL (
                   SELECT path FROM assets
                   WHERE project_id = %(project_id)s AND path_key = asked.key OFFSET 0) a ON true
               ORDER BY asked.key
               ON CONFLICT (project_id, path_key) DO UPDATE SET holder_id = excluded.holder_id,
                   base_version = excluded.base_version, expires_at = excluded.expires_at
               WHERE locks.holder_id = excluded.holder_id OR locks.expires_at <= now()
               RETURNING *)
           SELECT l.id, l.project_id, l.path_key, l.path, l.holder_id, u.username AS holder, l.base_version,
                  l.fencing_number, l.acquired_at, l.expires_at, l.acquired_at = now() AS is_new
           FROM granted l JOIN users u ON u.id = l.holder_id""",
        {
            "project_id": project_id,
            "path_keys": list(path_keys),
            "paths": list(paths),
            "bases": list(bases),
            "lease_seconds": lease_seconds,
        },
    )


async def foreign_locks_at(tx: Transaction, project_id: UUID, path_keys: Sequence[str]) -> list[DictRow]:
    return await fetch_all(
        tx,
        f"{_LOCK} WHERE l.project_id = %s AND l.path_key = ANY (%s) AND {_FOREIGN_LIVE} ORDER BY l.path_key",
        (project_id, list(path_keys)),
    )


async def stale_bases(
    tx: Transaction,
    project_id: UUID,
    branch_id: UUID,
    path_keys: Sequence[str],
    paths: Sequence[str],
    bases: Sequence[int | None],
    project_wide: Sequence[bool],
) -> list[DictRow]:
    """Where the base is not the newest version in scope: what is."""
    return await fetch_all(
        tx,
        _STALE_BASES,
        {
            "project_id": project_id,
            "branch_id": branch_id,
            "path_keys": list(path_keys),
            "paths": list(paths),
            "bases": list(bases),
            "project_wide": list(project_wide),
        },
    )


# Holding ------------------------------------------------------------------------------------------------------------


async def lock(tx: Transaction, lock_id: UUID) -> DictRow | None:
    return await fetch_one(tx, _LOCK + "WHERE l.id = %s", (lock_id,))


async def own_lock_for_update(tx: Transaction, lock_id: UUID) -> DictRow | None:
    """With `is_live`. None where it is not the asker's."""
    return await fetch_one(
        tx,
        """SELECT l.id, l.project_id, l.path, l.holder_id, u.username AS holder, l.base_version, l.fencing_number,
                  l.acquired_at, l.expires_at, l.expires_at > now() AS is_live
           FROM locks l JOIN users u ON u.id = l.holder_id
           WHERE l.id = %s AND l.holder_id = app_user_id() FOR UPDATE OF l""",
        (lock_id,),
    )


async def locks(
    tx: Transaction,
    project_id: UUID,
    path_key: str | None,
    prefix_key: str | None,
    holder: str | None,
    expired: bool | None,
    after: str,
    limit: int,
) -> list[DictRow]:
    """In path order, with `path_key`. Only the filters that are asked for are in the statement: each has its index."""
    filters = {
        "l.path_key = %(path_key)s": path_key,
        "l.path_key >= %(prefix)s AND l.path_key < %(prefix)s || U&'\\+10FFFF'": prefix_key,
        "l.holder_id = (SELECT id FROM users WHERE lower(username) = lower(%(holder)s))": holder,
        "(l.expires_at <= now()) = %(expired)s": expired,
    }
    wanted = "".join(f" AND {condition}" for condition, value in filters.items() if value is not None)
    parameters: dict[str, Any] = {
        "project_id": project_id,
        "path_key": path_key,
        "prefix": prefix_key,
        "holder": holder,
        "expired": expired,
        "after": after,
        "limit": limit,
    }
    return await fetch_all(
        tx,
        f"""{_LOCK} WHERE l.project_id = %(project_id)s AND l.path_key > %(after)s{wanted}
            ORDER BY l.path_key LIMIT %(limit)s""",
        parameters,
    )


async def renew(tx: Transaction, lock_id: UUID, lease_seconds: int) -> datetime:
    """When the lease now ends."""
    row = await fetch_one(
        tx,
        """UPDATE locks SET expires_at = now() + make_interval(secs => %s)
           WHERE id = %s AND holder_id = app_user_id() RETURNING expires_at""",
        (lease_seconds, lock_id),
    )
    assert row is not None
    expires_at = row["expires_at"]
    assert isinstance(expires_at, datetime)
    return expires_at


async def release(tx: Transaction, lock_id: UUID) -> None:
    await tx.execute("DELETE FROM locks WHERE id = %s AND holder_id = app_user_id()", (lock_id,))


async def break_lock(tx: Transaction, lock_id: UUID, reason: str) -> bool:
    """Whether it was still there."""
    return await fetch_one(tx, "SELECT FROM break_lock(%s, %s)", (lock_id, reason)) is not None


# What a submit has to respect ---------------------------------------------------------------------------------------


async def foreign_locks(tx: Transaction, changelist_id: UUID) -> list[DictRow]:
    return await fetch_all(tx, _FOREIGN_LOCKS, {"changelist_id": changelist_id})


async def release_submitted(tx: Transaction, project_id: UUID, changelist_id: UUID) -> None:
    await tx.execute(_RELEASE_SUBMITTED, {"project_id": project_id, "changelist_id": changelist_id})


async def lost_locks(tx: Transaction, changelist_id: UUID) -> list[DictRow]:
    """Items that rely on a lock which is not live any more, or is another one by now."""
    return await fetch_all(
        tx,
        f"""SELECT i.path, i.lock_fencing_number, (
                SELECT u.username FROM locks l JOIN users u ON u.id = l.holder_id
                WHERE l.project_id = i.project_id AND l.path_key IN (i.path_key, i.moved_from_key)
                  AND l.expires_at > now() LIMIT 1) AS holder
            FROM changelist_items i
            WHERE i.changelist_id = %s AND i.lock_fencing_number IS NOT NULL AND NOT EXISTS (
                SELECT FROM locks l
                WHERE l.project_id = i.project_id AND l.path_key IN (i.path_key, i.moved_from_key)
                  AND l.fencing_number = i.lock_fencing_number AND {_OWN_LIVE} OFFSET 0)
            ORDER BY i.path_key""",
        (changelist_id,),
    )


async def unlocked_exclusive_paths(
    tx: Transaction,
    project_id: UUID,
    changelist_id: UUID,
    regexes: Sequence[str],
    exclusive: Sequence[bool],
    limit: int,
) -> list[str]:
    """Paths that stop being what they were, without an own lock, where the first regex that matches is exclusive.

    What is integrated as it is, and newer, was locked where it was made; any other integration is an edit. One regex
    after the other over all items, because PostgreSQL keeps only 32 compiled ones.
    """
    rows = await fetch_all(
        tx,
        f"""WITH matched AS (
                SELECT DISTINCT ON (changed.key) changed.key, changed.path, rule.exclusive
                FROM unnest(%(regexes)s::text[], %(exclusive)s::bool[])
                    WITH ORDINALITY AS rule (regex, exclusive, place)
                CROSS JOIN LATERAL (
                    SELECT coalesce(moved_from_key, path_key) AS key, coalesce(moved_from, path) AS path
                    FROM changelist_items i
                    WHERE changelist_id = %(changelist_id)s AND action <> 'add' AND base_version IS NOT NULL
                      AND NOT (action = 'integrate' AND source_version > base_version AND EXISTS (
                          SELECT FROM assets a JOIN asset_versions v ON v.asset_id = a.id
                          WHERE a.project_id = i.project_id AND a.path_key = i.path_key
                            AND v.number = i.source_version AND v.sha256 = i.sha256 OFFSET 0))
                      AND coalesce(moved_from_key, path_key) ~ rule.regex OFFSET 0) changed
                ORDER BY changed.key, rule.place)
            SELECT path FROM matched WHERE exclusive AND NOT EXISTS (
                SELECT FROM locks l
                WHERE l.project_id = %(project_id)s AND l.path_key = matched.key AND {_OWN_LIVE} OFFSET 0)
            ORDER BY key LIMIT %(limit)s""",
        {
            "project_id": project_id,
            "changelist_id": changelist_id,
            "regexes": list(regexes),
            "exclusive": list(exclusive),
            "limit": limit,
        },
    )
    return [row["path"] for row in rows]


# Typemap ------------------------------------------------------------------------------------------------------------


async def typemap_rules(tx: Transaction, project_id: UUID) -> list[DictRow]:
    return await fetch_all(
        tx,
        """SELECT pattern, exclusive, mergeable, asset_type, scope FROM typemap_rules
           WHERE project_id = %s ORDER BY position""",
        (project_id,),
    )


async def hold_off_submits_and_locks(tx: Transaction, project_id: UUID) -> None:
    """Until the transaction ends: each of them goes by the rules before, or by those after."""
    await tx.execute("SELECT FROM changelist_counters WHERE project_id = %s FOR NO KEY UPDATE", (project_id,))


async def replace_typemap_rules(
    tx: Transaction, project_id: UUID, rules: Sequence[tuple[str, bool, bool, str, str]]
) -> None:
    """`rules` are (pattern, exclusive, mergeable, asset_type, scope)."""
    await tx.execute("DELETE FROM typemap_rules WHERE project_id = %s", (project_id,))
    if not rules:
        return
    patterns, exclusive, mergeable, asset_types, scopes = zip(*rules, strict=True)
    await tx.execute(
        """INSERT INTO typemap_rules (project_id, position, pattern, exclusive, mergeable, asset_type, scope)
           SELECT %s, place - 1, pattern, exclusive, mergeable, asset_type, scope
           FROM unnest(%s::text[], %s::bool[], %s::bool[], %s::text[], %s::lock_scope[])
               WITH ORDINALITY AS rule (pattern, exclusive, mergeable, asset_type, scope, place)""",
        (project_id, list(patterns), list(exclusive), list(mergeable), list(asset_types), list(scopes)),
    )
