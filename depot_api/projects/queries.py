"""SQL of projects and members."""

from uuid import UUID

from psycopg.rows import DictRow

from depot_api.database.pool import Transaction, fetch_all, fetch_one

# A studio admin acts in every project as its owner would.
_PROJECT = """
    SELECT p.id, p.name, p.description, p.status, p.quota_bytes, p.default_branch_id, p.created_at,
           CASE WHEN app_user_is_admin() THEN 'owner' ELSE m.role END AS my_role
    FROM projects p LEFT JOIN project_members m ON m.project_id = p.id AND m.user_id = app_user_id()
"""


async def create_project(tx: Transaction, name: str, description: str) -> UUID:
    row = await fetch_one(tx, "SELECT create_project(%s, %s) AS id", (name, description))
    assert row is not None
    return UUID(str(row["id"]))


async def project(tx: Transaction, project_id: UUID) -> DictRow | None:
    return await fetch_one(tx, _PROJECT + "WHERE p.id = %s", (project_id,))


async def projects(tx: Transaction, name: str | None, after: str, limit: int) -> list[DictRow]:
    return await fetch_all(
        tx,
        _PROJECT
        + """WHERE lower(p.name) > %(after)s AND (%(name)s::text IS NULL OR lower(p.name) = lower(%(name)s))
             ORDER BY lower(p.name) LIMIT %(limit)s""",
        {"after": after, "name": name, "limit": limit},
    )


async def update_project(
    tx: Transaction,
    project_id: UUID,
    name: str | None,
    description: str | None,
    status: str | None,
    sets_quota: bool,
    quota_bytes: int | None,
) -> None:
    """None leaves as it is; the quota is left when it is not `sets_quota`, since None takes it away."""
    await tx.execute(
        """UPDATE projects SET name = coalesce(%s, name), description = coalesce(%s, description),
               status = coalesce(%s, status),
               quota_bytes = CASE WHEN %s THEN %s ELSE quota_bytes END
           WHERE id = %s""",
        (name, description, status, sets_quota, quota_bytes, project_id),
    )


async def lock_project(tx: Transaction, project_id: UUID) -> None:
    """Waits for whoever writes to the project, and makes others wait. Locks nothing for somebody below manager."""
    await tx.execute("SELECT FROM projects WHERE id = %s FOR UPDATE", (project_id,))


async def archive_project(tx: Transaction, project_id: UUID, reason: str) -> DictRow:
    row = await fetch_one(tx, "SELECT * FROM archive_project(%s, %s)", (project_id, reason))
    assert row is not None
    return row


async def unarchive_project(tx: Transaction, project_id: UUID) -> bool:
    """False when it is not archived."""
    row = await fetch_one(tx, "SELECT unarchive_project(%s) AS done", (project_id,))
    return row is not None and bool(row["done"])


async def archives(tx: Transaction, project_id: UUID, after: UUID, limit: int) -> list[DictRow]:
    return await fetch_all(
        tx,
        "SELECT * FROM project_archives WHERE project_id = %s AND id > %s ORDER BY id LIMIT %s",
        (project_id, after, limit),
    )


async def members(tx: Transaction, project_id: UUID, after: UUID, limit: int) -> list[DictRow]:
    return await fetch_all(
        tx,
        """SELECT m.user_id, u.username, m.role, m.created_at
           FROM project_members m JOIN users u ON u.id = m.user_id
           WHERE m.project_id = %s AND m.user_id > %s ORDER BY m.user_id LIMIT %s""",
        (project_id, after, limit),
    )


async def set_member(tx: Transaction, project_id: UUID, username: str, role: str) -> DictRow | None:
    """None when there is no such user."""
    return await fetch_one(
        tx,
        """WITH member AS (
               INSERT INTO project_members (project_id, user_id, role)
               SELECT %s, id, %s FROM users WHERE lower(username) = lower(%s) AND is_active
               ON CONFLICT (project_id, user_id) DO UPDATE SET role = excluded.role
               RETURNING user_id, role, created_at)
           SELECT member.*, u.username FROM member JOIN users u ON u.id = member.user_id""",
        (project_id, role, username),
    )


async def member_role(tx: Transaction, project_id: UUID, user_id: UUID) -> str | None:
    row = await fetch_one(
        tx, "SELECT role FROM project_members WHERE project_id = %s AND user_id = %s", (project_id, user_id)
    )
    return row["role"] if row else None


async def remove_member(tx: Transaction, project_id: UUID, user_id: UUID) -> None:
    await tx.execute("DELETE FROM project_members WHERE project_id = %s AND user_id = %s", (project_id, user_id))


async def owners(tx: Transaction, project_id: UUID) -> list[UUID]:
    rows = await fetch_all(
        tx, "SELECT user_id FROM project_members WHERE project_id = %s AND role = 'owner' FOR UPDATE", (project_id,)
    )
    return [row["user_id"] for row in rows]
