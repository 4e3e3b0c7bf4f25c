"""Rules of users, whom studio admins manage. The database holds the same line (acts_as_admin, guard_studio_role)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from psycopg import errors

from depot_api.database.pool import Transaction
from depot_api.idempotency import once
from depot_api.identity import service as identity
from depot_api.identity.actor import Actor
from depot_api.identity.models import ApiToken
from depot_api.identity.passwords import hash_password, in_thread
from depot_api.problems import AlreadyExists, Conflict, NotFound, ProblemError
from depot_api.users import queries
from depot_api.users.models import User, UserCreate, UserUpdate
from depot_api.wire import Page, decode_cursor, encode_cursor


@asynccontextmanager
async def _as_admin(actor: Actor) -> AsyncIterator[Transaction]:
    """A transaction of a studio admin. Raises Forbidden."""
    async with actor.transaction() as tx:
        await identity.refuse_unless_admin(tx)
        yield tx


async def _user(tx: Transaction, user_id: UUID) -> User:
    row = await queries.user(tx, user_id)
    if row is None:
        raise NotFound(f"There is no user {user_id}.")
    return User.model_validate(row)


async def create_user(actor: Actor, wanted: UserCreate, idempotency_key: str | None) -> User:
    async def create() -> User:
        try:
            user_id = await queries.create_user(
                tx, wanted.username, wanted.display_name, password_hash, wanted.studio_role
            )
        except errors.UniqueViolation:
            raise AlreadyExists(
                f"There is a user {wanted.username!r} already. Choose another name, or change that user.",
                errors=[ProblemError(detail="taken", pointer="/username")],
            ) from None
        return await _user(tx, user_id)

    async with _as_admin(actor):
        pass  # nobody else gets the service to compute a hash
    password_hash = await in_thread(hash_password, wanted.password)
    async with _as_admin(actor) as tx:
        # Without the password: what is kept of the request is a plain hash, which could be guessed from.
        request = "create user " + wanted.model_dump_json(exclude={"password"})
        return await once(tx, actor.user_id, idempotency_key, request, User, create)


async def get_user(actor: Actor, user_id: UUID) -> User:
    async with _as_admin(actor) as tx:
        return await _user(tx, user_id)


async def list_users(actor: Actor, name: str | None, limit: int, cursor: str | None) -> Page[User]:
    after = decode_cursor(cursor, str)
    async with _as_admin(actor) as tx:
        rows = await queries.users(tx, name, str(after[0]) if after else "", limit)
    items = [User.model_validate(row) for row in rows]
    return Page(items=items, next_cursor=encode_cursor(items[-1].username.lower()) if len(items) == limit else None)


async def update_user(actor: Actor, user_id: UUID, wanted: UserUpdate) -> User:
    """A deactivated user is out at once: every transaction asks."""
    async with _as_admin(actor) as tx:
        user = await _user(tx, user_id)
        try:
            await queries.update_user(tx, user_id, wanted.display_name, wanted.studio_role, wanted.is_active)
        except errors.RestrictViolation:
            raise Conflict(f"{user.username} is the last active admin. Make someone else admin first.") from None
        return await _user(tx, user_id)


async def reset_password(actor: Actor, user_id: UUID, password: str) -> None:
    async with _as_admin(actor) as tx:
        await _user(tx, user_id)
    await identity.set_password(actor, user_id, password)


async def list_tokens(actor: Actor, user_id: UUID, limit: int, cursor: str | None) -> Page[ApiToken]:
    async with _as_admin(actor) as tx:
        await _user(tx, user_id)
    return await identity.list_tokens(actor, user_id, limit, cursor)


async def revoke_token(actor: Actor, user_id: UUID, token_id: UUID) -> None:
    async with _as_admin(actor) as tx:
        await _user(tx, user_id)
    await identity.revoke_token(actor, user_id, token_id)
