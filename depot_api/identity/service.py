"""Signing in, passwords and API tokens."""

import hashlib
import math
from datetime import UTC, datetime, timedelta
from uuid import UUID

from psycopg import errors
from psycopg.rows import DictRow

from depot_api.database.pool import Transaction
from depot_api.depot import Depot
from depot_api.idempotency import once
from depot_api.identity import queries
from depot_api.identity.actor import Actor
from depot_api.identity.models import (
    MAX_TOKEN_DAYS,
    AccessToken,
    ApiToken,
    CreatedToken,
    Credentials,
    Me,
    PasswordChange,
    TokenCreate,
    TokenScope,
)
from depot_api.identity.passwords import hash_password, in_thread, password_matches
from depot_api.identity.tokens import hash_api_token, issue_access_token, new_api_token, repeatable_api_token
from depot_api.problems import (
    Conflict,
    Forbidden,
    IdempotencyKeyReused,
    Invalid,
    NotFound,
    ProblemError,
    TooManyAttempts,
    Unauthenticated,
)
from depot_api.wire import NIL, Page, decode_uuid_cursor, encode_cursor

# What a token may hand out; somebody who signed in with a password has all. The database holds the same line.
GRANTABLE_SCOPES = {
    TokenScope.READ: {TokenScope.READ},
    TokenScope.PIPELINE: set(),
    TokenScope.WRITE: {TokenScope.READ, TokenScope.WRITE},
    TokenScope.ADMIN: set(TokenScope),
}


async def sign_in(depot: Depot, credentials: Credentials, address: str) -> AccessToken:
    """Raises Unauthenticated alike for an unknown user and a wrong password; TooManyAttempts after a few failures."""
    user = await _user_with_password(depot, credentials.username, credentials.password, address)
    if user is None:
        raise Unauthenticated("Username or password is wrong.")
    lifetime = timedelta(minutes=depot.settings.jwt_expiration_minutes)
    token = issue_access_token(user["id"], depot.settings.jwt_secret.get_secret_value(), lifetime)
    return AccessToken(access_token=token, expires_in=int(lifetime.total_seconds()))


async def _user_with_password(depot: Depot, username: str, password: str, address: str) -> DictRow | None:
    """None alike for an unknown user and a wrong password. Raises TooManyAttempts after a few failures."""
    account, origin = _subject("account", username.lower()), _subject("address", address)
    async with depot.database.anonymous() as tx:
        wait_seconds = await queries.sign_in_attempt(tx, account, origin)
        user = await queries.sign_in_user(tx, username)
    if wait_seconds > 0:
        raise TooManyAttempts(
            f"Too many failed sign-ins for this account or address. Try again in {math.ceil(wait_seconds)} s.",
            retry_after_seconds=math.ceil(wait_seconds),
        )
    # No connection is held while Argon2 works, which takes tens of milliseconds by design.
    password_hash = user["password_hash"] if user and user["is_active"] else None
    if not await in_thread(password_matches, password, password_hash):
        return None
    async with depot.database.anonymous() as tx:
        await queries.sign_in_succeeded(tx, account, origin)
    return user


def _subject(kind: str, name: str) -> bytes:
    return hashlib.sha256(f"{kind}:{name}".encode()).digest()


async def me(actor: Actor) -> Me:
    async with actor.transaction() as tx:
        row = await queries.user(tx, actor.user_id)
    assert row is not None, "set_app_user has just checked that the user exists"
    return Me.model_validate(row)


async def refuse_unless_admin(tx: Transaction) -> None:
    """Raises Forbidden. The database's functions and policies hold the same line without words."""
    if not await queries.acts_as_admin(tx):
        raise Forbidden("This is for studio admins, who signed in or use an API token with the scope admin.")


async def change_password(actor: Actor, wanted: PasswordChange, address: str) -> None:
    """Raises Invalid when the current password is wrong; guessing it is slowed as at sign-in."""
    user = await me(actor)
    if await _user_with_password(actor.depot, user.username, wanted.current_password, address) is None:
        raise Invalid(
            "The current password is wrong. An admin can reset it.",
            errors=[ProblemError(detail="not your password", pointer="/current_password")],
        )
    await set_password(actor, actor.user_id, wanted.new_password)


async def set_password(actor: Actor, user_id: UUID, password: str) -> None:
    """One's own, or anybody's for an admin: the database refuses everybody else."""
    password_hash = await in_thread(hash_password, password)
    async with actor.transaction() as tx:
        if not await queries.set_password_hash(tx, user_id, password_hash):
            raise NotFound(f"There is no user {user_id}.")


async def create_token(actor: Actor, wanted: TokenCreate, idempotency_key: str | None) -> CreatedToken:
    """A token for the actor. Raises Forbidden when it would do more than whoever asks for it may.

    Raises Conflict when the one that the key has made is not live any more, or cannot be told again.
    """

    async def create() -> ApiToken:
        if wanted.scope is TokenScope.PIPELINE and not await queries.acts_as_admin(tx):
            raise Forbidden(
                "What a pipeline passes may land, so only a studio admin makes a token with the scope pipeline."
            )
        try:
            row = await queries.create_token(
                tx, actor.user_id, wanted.name, hash_api_token(token), wanted.scope, _expiry(wanted)
            )
        except errors.UniqueViolation:
            raise IdempotencyKeyReused("This Idempotency-Key made a token long ago. Take a new one.") from None
        return ApiToken.model_validate(row)

    if actor.scope is not None and wanted.scope not in GRANTABLE_SCOPES[actor.scope]:
        raise Forbidden(
            f"Your API token has the scope {actor.scope} and cannot make one with the scope {wanted.scope}. "
            "Sign in with your password, or use a token with the scope admin."
        )
    secret = actor.depot.settings.jwt_secret.get_secret_value()
    token = repeatable_api_token(actor.user_id, idempotency_key, secret) if idempotency_key else new_api_token()
    async with actor.transaction() as tx:
        request = "create token " + wanted.model_dump_json()
        made = await once(tx, actor.user_id, idempotency_key, request, ApiToken, create)
        if await queries.sign_in_token(tx, hash_api_token(token)) is None:
            raise Conflict(
                f"Token {made.id}, which this Idempotency-Key made, is revoked or expired, or the service's secret is "
                "another now and it cannot be told again. Revoke it, and make one with a new key."
            )
    return CreatedToken(**made.model_dump(), token=token)


def _expiry(wanted: TokenCreate) -> datetime:
    """Raises Invalid."""
    now = datetime.now(UTC)
    expires_at = wanted.expires_at or now + timedelta(days=wanted.expires_in_days or 0)
    if not now < expires_at <= now + timedelta(days=MAX_TOKEN_DAYS):
        raise Invalid(
            f"A token expires in the future, and within {MAX_TOKEN_DAYS} days.",
            errors=[ProblemError(detail="past, or too far away", pointer="/expires_at")],
        )
    return expires_at


async def list_tokens(actor: Actor, user_id: UUID, limit: int, cursor: str | None) -> Page[ApiToken]:
    """Of anybody but oneself only for an admin: others see none."""
    after = decode_uuid_cursor(cursor) or NIL
    async with actor.transaction() as tx:
        rows = await queries.tokens(tx, user_id, after, limit)
    items = [ApiToken.model_validate(row) for row in rows]
    return Page(items=items, next_cursor=encode_cursor(str(items[-1].id)) if len(items) == limit else None)


async def revoke_token(actor: Actor, user_id: UUID, token_id: UUID) -> None:
    async with actor.transaction() as tx:
        if not await queries.token_exists(tx, user_id, token_id):
            raise NotFound(f"There is no token {token_id} that you can see.")
        await queries.revoke_token(tx, token_id)
