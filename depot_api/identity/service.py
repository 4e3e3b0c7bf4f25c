"""Signing in."""

import asyncio
import hashlib
import math
from datetime import timedelta

from depot_api.database.pool import Transaction
from depot_api.depot import Depot
from depot_api.identity import queries
from depot_api.identity.actor import Actor
from depot_api.identity.models import AccessToken, Credentials, Me, StudioRole
from depot_api.identity.passwords import password_matches
from depot_api.identity.tokens import issue_access_token
from depot_api.problems import Forbidden, TooManyAttempts, Unauthenticated


async def sign_in(depot: Depot, credentials: Credentials, address: str) -> AccessToken:
    """Raises Unauthenticated alike for an unknown user and a wrong password; TooManyAttempts after five failures."""
    subjects = [_subject("account", credentials.username.lower()), _subject("address", address)]
    async with depot.database.anonymous() as tx:
        wait_seconds = await queries.sign_in_wait_seconds(tx, subjects)
        user = await queries.sign_in_user(tx, credentials.username)
    if wait_seconds > 0:
        raise TooManyAttempts(
            f"Too many failed sign-ins for this account or address. Try again in {math.ceil(wait_seconds)} s.",
            retry_after_seconds=math.ceil(wait_seconds),
        )
    # No connection is held while Argon2 works, which takes tens of milliseconds by design.
    password_hash = user["password_hash"] if user and user["is_active"] else None
    matches = await asyncio.to_thread(password_matches, credentials.password, password_hash)
    async with depot.database.anonymous() as tx:
        if matches:
            await queries.sign_in_succeeded(tx, subjects)
        else:
            await queries.sign_in_failed(tx, subjects)
    if not matches or user is None:
        raise Unauthenticated("Username or password is wrong.")
    lifetime = timedelta(minutes=depot.settings.jwt_expiration_minutes)
    token = issue_access_token(user["id"], depot.settings.jwt_secret.get_secret_value(), lifetime)
    return AccessToken(access_token=token, expires_in=int(lifetime.total_seconds()))


def _subject(kind: str, name: str) -> bytes:
    return hashlib.sha256(f"{kind}:{name}".encode()).digest()


async def me(actor: Actor) -> Me:
    async with actor.transaction() as tx:
        row = await queries.user(tx, actor.user_id)
    assert row is not None, "set_app_user has just checked that the user exists"
    return Me.model_validate(row)


async def refuse_unless_admin(tx: Transaction, actor: Actor) -> None:
    """Raises Forbidden. The database's functions and policies hold the same line without words."""
    row = await queries.user(tx, actor.user_id)
    if row is None or StudioRole(row["studio_role"]) is not StudioRole.ADMIN:
        raise Forbidden("This is for studio admins.")
