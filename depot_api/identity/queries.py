"""SQL of identity. Sign-in goes through SECURITY DEFINER functions: before it, the service sees no user."""

from datetime import datetime
from uuid import UUID

from psycopg import Connection
from psycopg.rows import DictRow

from depot_api.database.pool import Transaction, fetch_all, fetch_one

_COLUMNS = "id, user_id, name, scope, expires_at, revoked_at, created_at"


async def sign_in_user(tx: Transaction, username: str) -> DictRow | None:
    return await fetch_one(tx, "SELECT * FROM sign_in_user(%s)", (username,))


async def sign_in_token(tx: Transaction, token_sha256: bytes) -> DictRow | None:
    return await fetch_one(tx, "SELECT * FROM sign_in_token(%s)", (token_sha256,))


async def sign_in_attempt(tx: Transaction, account: bytes, address: bytes) -> float:
    """Counted, and 0; or not counted, and the seconds to wait."""
    row = await fetch_one(tx, "SELECT sign_in_attempt(%s, %s) AS seconds", (account, address))
    assert row is not None
    return float(row["seconds"])


async def sign_in_succeeded(tx: Transaction, account: bytes, address: bytes) -> None:
    await tx.execute("SELECT sign_in_succeeded(%s, %s)", (account, address))


async def acts_as_admin(tx: Transaction) -> bool:
    """Whether the asker is a studio admin, and the token that was sent may act as one."""
    row = await fetch_one(tx, "SELECT acts_as_admin() AS acts")
    return row is not None and bool(row["acts"])


async def user(tx: Transaction, user_id: UUID) -> DictRow | None:
    return await fetch_one(tx, "SELECT id, username, display_name, studio_role FROM users WHERE id = %s", (user_id,))


async def set_password_hash(tx: Transaction, user_id: UUID, password_hash: str) -> bool:
    """False when there is no such user."""
    row = await fetch_one(tx, "SELECT set_password_hash(%s, %s) AS found", (user_id, password_hash))
    return row is not None and bool(row["found"])


async def create_token(
    tx: Transaction, user_id: UUID, name: str, token_sha256: bytes, scope: str, expires_at: datetime
) -> DictRow:
    row = await fetch_one(
        tx,
        f"""INSERT INTO api_tokens (user_id, name, token_sha256, scope, expires_at) VALUES (%s, %s, %s, %s, %s)
            RETURNING {_COLUMNS}""",
        (user_id, name, token_sha256, scope, expires_at),
    )
    assert row is not None
    return row


async def tokens(tx: Transaction, user_id: UUID, after: UUID, limit: int) -> list[DictRow]:
    return await fetch_all(
        tx,
        f"SELECT {_COLUMNS} FROM api_tokens WHERE user_id = %s AND id > %s ORDER BY id LIMIT %s",
        (user_id, after, limit),
    )


async def token_exists(tx: Transaction, user_id: UUID, token_id: UUID) -> bool:
    return await fetch_one(tx, "SELECT FROM api_tokens WHERE user_id = %s AND id = %s", (user_id, token_id)) is not None


async def revoke_token(tx: Transaction, token_id: UUID) -> None:
    """Once revoked, the time of it stays."""
    await tx.execute("UPDATE api_tokens SET revoked_at = now() WHERE id = %s AND revoked_at IS NULL", (token_id,))


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
    """False when there is no such active user. The same token again changes nothing."""
    user = owner.execute("SELECT id FROM users WHERE lower(username) = lower(%s) AND is_active", (username,)).fetchone()
    if user is None:
        return False
    owner.execute(
        """INSERT INTO api_tokens (user_id, name, token_sha256, scope, expires_at) VALUES (%s, %s, %s, %s, %s)
           ON CONFLICT (token_sha256) DO NOTHING""",
        (user["id"], name, token_sha256, scope, expires_at),
    )
    return True
