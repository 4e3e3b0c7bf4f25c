"""SQL of identity. Sign-in goes through SECURITY DEFINER functions: before it, the service sees no user."""

from datetime import datetime
from uuid import UUID

from psycopg import Connection
from psycopg.rows import DictRow

from depot_api.database.pool import Transaction, fetch_one


async def sign_in_user(tx: Transaction, username: str) -> DictRow | None:
    return await fetch_one(tx, "SELECT * FROM sign_in_user(%s)", (username,))


async def sign_in_token(tx: Transaction, token_sha256: bytes) -> DictRow | None:
    return await fetch_one(tx, "SELECT * FROM sign_in_token(%s)", (token_sha256,))


async def sign_in_wait_seconds(tx: Transaction, subjects: list[bytes]) -> float:
    row = await fetch_one(tx, "SELECT sign_in_wait_seconds(%s) AS seconds", (subjects,))
    return float(row["seconds"]) if row else 0.0


async def sign_in_failed(tx: Transaction, subjects: list[bytes]) -> None:
    await tx.execute("SELECT sign_in_failed(%s)", (subjects,))


async def sign_in_succeeded(tx: Transaction, subjects: list[bytes]) -> None:
    await tx.execute("SELECT sign_in_succeeded(%s)", (subjects,))


async def user(tx: Transaction, user_id: UUID) -> DictRow | None:
    return await fetch_one(tx, "SELECT id, username, display_name, studio_role FROM users WHERE id = %s", (user_id,))


# Run as the owner role, from the command line, before anybody can sign in.


def admin_exists(owner: Connection[DictRow]) -> bool:
    return owner.execute("SELECT FROM users WHERE studio_role = 'admin' AND is_active").fetchone() is not None


def insert_admin(owner: Connection[DictRow], username: str, password_hash: str) -> None:
    """An account of that name, as a rebuilt catalogue has it, becomes the admin's again."""
    owner.execute(
        """INSERT INTO users (username, password_hash, studio_role) VALUES (%s, %s, 'admin')
           ON CONFLICT (lower(username)) DO UPDATE
           SET password_hash = excluded.password_hash, studio_role = 'admin', is_active = true""",
        (username, password_hash),
    )


def insert_token(
    owner: Connection[DictRow], username: str, name: str, token_sha256: bytes, scope: str, expires_at: datetime
) -> bool:
    """False when there is no such active user."""
    return (
        owner.execute(
            """INSERT INTO api_tokens (user_id, name, token_sha256, scope, expires_at)
               SELECT id, %s, %s, %s, %s FROM users WHERE lower(username) = lower(%s) AND is_active""",
            (name, token_sha256, scope, expires_at, username),
        ).rowcount
        == 1
    )
