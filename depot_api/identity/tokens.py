"""Signed access tokens for people and API tokens for services."""

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import jwt

ISSUER = "asset-depot"
ALGORITHM = "HS256"
API_TOKEN_PREFIX = "depot_"  # noqa: S105 - lets scanners recognise a leaked token


@dataclass(frozen=True, slots=True)
class Session:
    """Whose an access token is, and since when."""

    user_id: UUID
    signed_in_at: datetime


def issue_access_token(user_id: UUID, secret: str, lifetime: timedelta) -> str:
    now = datetime.now(UTC)
    # To the microsecond: a password that is reset in the same second ends what came before, and not what comes after.
    claims = {"iss": ISSUER, "sub": str(user_id), "iat": now.timestamp(), "exp": now + lifetime}
    return jwt.encode(claims, secret, algorithm=ALGORITHM)


def read_access_token(token: str, secret: str) -> Session | None:
    """None when it is forged, expired or not ours."""
    try:
        claims = jwt.decode(
            token, secret, algorithms=[ALGORITHM], issuer=ISSUER, options={"require": ["exp", "sub", "iss", "iat"]}
        )
        return Session(UUID(claims["sub"]), datetime.fromtimestamp(claims["iat"], UTC))
    except (jwt.InvalidTokenError, ValueError):
        return None


def new_api_token() -> str:
    """Shown once; only its hash is stored."""
    return API_TOKEN_PREFIX + secrets.token_urlsafe(32)


def repeatable_api_token(user_id: UUID, idempotency_key: str, secret: str) -> str:
    """The same for the same request, so that it can be told again though it is stored nowhere.

    `secret` is the service's own; what is told of it here signs no access token.
    """
    own_secret = hmac.digest(secret.encode(), b"api tokens", "sha256")
    told = hmac.digest(own_secret, f"{user_id} {idempotency_key}".encode(), "sha256")
    return API_TOKEN_PREFIX + base64.urlsafe_b64encode(told).decode().rstrip("=")


def hash_api_token(token: str) -> bytes:
    """A plain hash is enough: the token is 256 random bits, so there is nothing to guess."""
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
