"""Who is asking: resolved from the bearer token, carried into every service call."""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from depot_api.database.pool import Transaction
from depot_api.depot import Depot, DepotState
from depot_api.identity import queries
from depot_api.identity.models import TokenScope
from depot_api.identity.tokens import API_TOKEN_PREFIX, hash_api_token, read_access_token
from depot_api.problems import Forbidden, Unauthenticated

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
# Questions that need a body: a token that may only read may ask them.
READ_ONLY_POSTS = ("/objects/missing", "/objects/fetch")
VALIDATIONS = "/validations"
MAX_KNOWN_TOKENS = 10_000  # of one worker, in a few megabytes

_bearer = HTTPBearer(auto_error=False, description="Access token from POST /auth/token, or an API token.")


@dataclass(frozen=True, slots=True)
class Actor:
    """The signed-in user of one request."""

    user_id: UUID
    request_id: str
    depot: Depot
    scope: TokenScope | None = None
    token_sha256: bytes | None = None
    signed_in_at: datetime | None = None

    def transaction(self, *, keeps_plans: bool = False) -> AbstractAsyncContextManager[Transaction]:
        """One transaction that sees and may do what this user may. What was sent, token or session, has to be live."""
        return self.depot.database.transaction(
            self.user_id, self.request_id, self.token_sha256, self.signed_in_at, keeps_plans=keeps_plans
        )


async def current_user(
    request: Request, depot: DepotState, bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Actor:
    """Raises Unauthenticated, or Forbidden when the token's scope does not cover the method."""
    if bearer is None:
        raise Unauthenticated("No bearer token was sent. Get one from POST /auth/token, or use an API token.")
    token = bearer.credentials
    if token.startswith(API_TOKEN_PREFIX):
        return await _actor_of_api_token(hash_api_token(token), request, depot)
    session = read_access_token(token, depot.settings.jwt_secret.get_secret_value())
    if session is None:
        raise _not_valid()
    return Actor(session.user_id, request.state.request_id, depot, signed_in_at=session.signed_in_at)


def _not_valid() -> Unauthenticated:
    return Unauthenticated("The token is not valid: unknown, expired or revoked. Sign in again.")


async def _actor_of_api_token(token_sha256: bytes, request: Request, depot: Depot) -> Actor:
    """Whose a token is, and its scope, never change; whether it is live, each transaction asks the database."""
    known = depot.api_tokens.get(token_sha256)
    if known is None:
        async with depot.database.anonymous() as tx:
            known = await queries.sign_in_token(tx, token_sha256)
        if known is None:
            raise _not_valid()
        if len(depot.api_tokens) >= MAX_KNOWN_TOKENS:
            depot.api_tokens.clear()
        depot.api_tokens[token_sha256] = known
    scope = TokenScope(known["scope"])
    reads_only = request.method in SAFE_METHODS or request.url.path.endswith(READ_ONLY_POSTS)
    if scope is TokenScope.READ and not reads_only:
        raise Forbidden("This API token may only read. Use one with the scope write.")
    if scope is TokenScope.PIPELINE and not (reads_only or request.url.path.endswith(VALIDATIONS)):
        raise Forbidden("This API token may only read and write validations. Use one with the scope write.")
    return Actor(known["user_id"], request.state.request_id, depot, scope, token_sha256)


CurrentUser = Annotated[Actor, Depends(current_user)]


async def current_account(actor: CurrentUser) -> Actor:
    """For routes that manage accounts. Raises Forbidden for an API token that is not made for it."""
    if actor.scope not in (None, TokenScope.ADMIN):
        raise Forbidden("This takes an API token with the scope admin, or signing in with a password.")
    return actor


AccountUser = Annotated[Actor, Depends(current_account)]
