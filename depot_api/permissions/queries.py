"""SQL of permissions by path."""

from collections.abc import Sequence
from uuid import UUID

from psycopg.rows import DictRow

from depot_api.database.pool import Transaction, fetch_all, fetch_one


async def rules(tx: Transaction, project_id: UUID) -> list[DictRow]:
    return await fetch_all(
        tx,
        """SELECT p.pattern, p.access, u.username, p.role FROM path_permissions p LEFT JOIN users u ON u.id = p.user_id
           WHERE p.project_id = %s ORDER BY p.position""",
        (project_id,),
    )


async def replace_rules(
    tx: Transaction,
    project_id: UUID,
    patterns: Sequence[str],
    regexes: Sequence[str],
    usernames: Sequence[str | None],
    roles: Sequence[str | None],
    accesses: Sequence[str],
) -> None:
    await tx.execute("DELETE FROM path_permissions WHERE project_id = %s", (project_id,))
    await tx.execute(
        """INSERT INTO path_permissions (project_id, position, pattern, regex, user_id, role, access)
           SELECT %s, r.position, r.pattern, r.regex, u.id, r.role, r.access
           FROM unnest(%s::text[], %s::text[], %s::text[], %s::project_role[], %s::path_access[])
               WITH ORDINALITY AS r (pattern, regex, username, role, access, position)
           LEFT JOIN users u ON lower(u.username) = lower(r.username)""",
        (project_id, list(patterns), list(regexes), list(usernames), list(roles), list(accesses)),
    )


async def members(tx: Transaction, project_id: UUID, usernames: Sequence[str]) -> set[str]:
    """Those of the names, in lower case, that are members of the project."""
    rows = await fetch_all(
        tx,
        """SELECT lower(u.username) AS name FROM users u
           JOIN project_members m ON m.user_id = u.id AND m.project_id = %s WHERE lower(u.username) = ANY (%s)""",
        (project_id, [name.lower() for name in usernames]),
    )
    return {row["name"] for row in rows}


async def forbidden_paths(
    tx: Transaction, project_id: UUID, paths: Sequence[tuple[str, str, str]], limit: int
) -> list[DictRow]:
    """Of (path, path_key, access needed), those where the rules leave the asker less: {path, access, needed}"""
    names, keys, needed = zip(*paths, strict=True)
    return await fetch_all(
        tx,
        """SELECT p.path, my_path_access(%(project)s, p.key) AS access, p.needed
           FROM unnest(%(paths)s::text[], %(keys)s::text[], %(needed)s::path_access[]) AS p (path, key, needed)
           WHERE %(project)s = ANY ((SELECT restricted_projects())::uuid[])
             AND my_path_access(%(project)s, p.key) < p.needed
           LIMIT %(limit)s""",
        {"project": project_id, "paths": list(names), "keys": list(keys), "needed": list(needed), "limit": limit},
    )


async def my_access(tx: Transaction, project_id: UUID, path_key: str) -> str:
    row = await fetch_one(
        tx,
        """SELECT CASE WHEN %(project)s = ANY (restricted_projects()) THEN my_path_access(%(project)s, %(key)s)
                  ELSE 'delete' END AS access""",
        {"project": project_id, "key": path_key},
    )
    assert row is not None
    return str(row["access"])


async def may_hide(tx: Transaction, project_id: UUID) -> bool:
    """Whether a rule about the asker may keep some path from them."""
    row = await fetch_one(
        tx,
        """SELECT %(project)s = ANY ((SELECT restricted_projects())::uuid[]) AND EXISTS (
               SELECT FROM path_permissions p JOIN project_members m
                 ON m.project_id = p.project_id AND m.user_id = app_user_id()
               WHERE p.project_id = %(project)s AND p.access = 'none'
                 AND (p.user_id IS NULL OR p.user_id = m.user_id) AND (p.role IS NULL OR p.role = m.role)) AS hides""",
        {"project": project_id},
    )
    assert row is not None
    return bool(row["hides"])
