"""/users: for studio admins."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, status

from depot_api.idempotency import Key
from depot_api.identity.actor import AccountUser
from depot_api.identity.models import ApiToken
from depot_api.problems import AlreadyExists, Conflict, Forbidden, IdempotencyKeyReused, documented
from depot_api.users import service
from depot_api.users.models import PasswordReset, User, UserCreate, UserUpdate
from depot_api.wire import Cursor, Limit, Page, Text

router = APIRouter(prefix="/users", tags=["users"])


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    summary="Create a user",
    responses=documented(AlreadyExists, Forbidden, IdempotencyKeyReused),
)
async def create_user(body: UserCreate, actor: AccountUser, idempotency_key: Key = None) -> User:
    return await service.create_user(actor, body, idempotency_key)


@router.get("", summary="List the users", responses=documented(Forbidden))
async def list_users(
    actor: AccountUser,
    name: Annotated[Text | None, Query(max_length=200, description="Part of username or display name.")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[User]:
    return await service.list_users(actor, name, limit, cursor)


@router.get("/{user_id}", summary="Get a user", responses=documented(Forbidden))
async def get_user(user_id: UUID, actor: AccountUser) -> User:
    return await service.get_user(actor, user_id)


@router.patch("/{user_id}", summary="Change a user", responses=documented(Forbidden, Conflict))
async def update_user(user_id: UUID, body: UserUpdate, actor: AccountUser) -> User:
    """Deactivating signs the user out at once and revokes the user's API tokens. The last active admin can be neither
    demoted nor deactivated."""
    return await service.update_user(actor, user_id, body)


@router.post(
    "/{user_id}/password",
    status_code=status.HTTP_204_NO_CONTENT,
    summary="Reset a user's password",
    responses=documented(Forbidden),
)
async def reset_password(user_id: UUID, body: PasswordReset, actor: AccountUser) -> None:
    """Ends the user's sessions and revokes the user's API tokens: whoever has them may not be the user."""
    await service.reset_password(actor, user_id, body.password)


@router.get("/{user_id}/tokens", summary="List a user's API tokens", responses=documented(Forbidden))
async def list_tokens(user_id: UUID, actor: AccountUser, limit: Limit = 100, cursor: Cursor = None) -> Page[ApiToken]:
    return await service.list_tokens(actor, user_id, limit, cursor)


@router.delete(
    "/{user_id}/tokens/{token_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    summary="Revoke a user's API token",
    responses=documented(Forbidden),
)
async def revoke_token(user_id: UUID, token_id: UUID, actor: AccountUser) -> None:
    """Revoking it again does nothing."""
    await service.revoke_token(actor, user_id, token_id)
