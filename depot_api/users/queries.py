"""SQL of users. Writes go through functions that ask who asks; no statement here can read a password's hash."""

from uuid import UUID

from psycopg.rows import DictRow

from depot_api.database.pool import Transaction, fetch_all, fetch_one

_USER = "SELECT id, username, display_name, studio_role, is_active, created_at FROM users "


async def create_user(tx: Transaction, username: str, display_name: str, password_hash: str, studio_role: str) -> UUID:
    row = await fetch_one(
        tx, "SELECT create_user(%s, %s, %s, %s) AS id", (username, display_name, password_hash, studio_role)
    )
    assert row is not None
    return UUID(str(row["id"]))


async def user(tx: Transaction, user_id: UUID) -> DictRow | None:
    return await fetch_one(tx, _USER + "WHERE id = %s", (user_id,))


async def users(tx: Transaction, name: str | None, after: str, limit: int) -> list[DictRow]:
    return await fetch_all(
        tx,
        _USER
        + """WHERE lower(username) > %(after)s
               AND (%(name)s::text IS NULL OR strpos(lower(username), lower(%(name)s)) > 0
                    OR strpos(lower(display_name), lower(%(name)s)) > 0)
             ORDER BY lower(username) LIMIT %(limit)s""",
        {"after": after, "name": name, "limit": limit},
    )


async def update_user(
    tx: Transaction, user_id: UUID, display_name: str | None, studio_role: str | None, is_active: bool | None
) -> None:
    """None leaves as it is."""
    await tx.execute("SELECT update_user(%s, %s, %s, %s)", (user_id, display_name, studio_role, is_active))
