"""/auth"""

from uuid import UUID

from fastapi import APIRouter, Request, status
from pydantic import ValidationError

from depot_api.depot import DepotState
from depot_api.idempotency import Key
from depot_api.identity import service
from depot_api.identity.actor import AccountUser, CurrentUser
from depot_api.identity.models import (
    AccessToken,
    ApiToken,
    CreatedToken,
    Credentials,
    Me,
    PasswordChange,
    TokenCreate,
)
from depot_api.problems import (
    Conflict,
    Forbidden,
    IdempotencyKeyReused,
    Invalid,
    ProblemError,
    TooManyAttempts,
    documented,
)
from depot_api.wire import Cursor, Limit, Page

router = APIRouter(prefix="/auth", tags=["identity"])

_CREDENTIALS = {"schema": Credentials.model_json_schema()}


@router.post(
    "/token",
    summary="Sign in with username and password",
    responses=documented(TooManyAttempts),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": _CREDENTIALS, "application/x-www-form-urlencoded": _CREDENTIALS},
        }
    },
)
async def create_access_token(request: Request, depot: DepotState) -> AccessToken:
    """Takes a JSON object or a form, as OAuth 2's password grant sends it."""
    credentials = await _credentials(request)
    return await service.sign_in(depot, credentials, _address(request))


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


async def _credentials(request: Request) -> Credentials:
    try:
        if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            form = await request.form()
            return Credentials.model_validate({key: form.get(key) for key in Credentials.model_fields})
        return Credentials.model_validate_json(await request.body())
    except ValidationError as error:
        errors = [
            ProblemError(detail=e["msg"], pointer="/" + "/".join(map(str, e["loc"])))
            for e in error.errors(include_input=False, include_url=False)
        ]
        raise Invalid("Send username and password, as JSON or as a form.", errors=errors) from None


@router.get("/me", summary="Who am I", responses=documented())
async def get_me(actor: CurrentUser) -> Me:
    return await service.me(actor)


@router.post(
    "/password",
    status_code=status.HTTP_204_NO_CONTENT,
    summary="Change your password",
    responses=documented(Forbidden, TooManyAttempts),
)
async def change_password(body: PasswordChange, request: Request, actor: AccountUser) -> None:
    await service.change_password(actor, body, _address(request))


@router.post(
    "/tokens",
    status_code=status.HTTP_201_CREATED,
    summary="Create an API token",
    responses=documented(Forbidden, Conflict, IdempotencyKeyReused),
)
async def create_token(body: TokenCreate, actor: CurrentUser, idempotency_key: Key = None) -> CreatedToken:
    """The token is in this answer and nowhere else. With an `Idempotency-Key` it is made from that key and a secret of
    the service's, and so is told again while it is live."""
    return await service.create_token(actor, body, idempotency_key)


@router.get("/tokens", summary="List your API tokens", responses=documented())
async def list_tokens(actor: CurrentUser, limit: Limit = 100, cursor: Cursor = None) -> Page[ApiToken]:
    return await service.list_tokens(actor, actor.user_id, limit, cursor)


@router.delete(
    "/tokens/{token_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    summary="Revoke one of your API tokens",
    responses=documented(Forbidden),
)
async def revoke_token(token_id: UUID, actor: CurrentUser) -> None:
    """Revoking it again does nothing."""
    await service.revoke_token(actor, actor.user_id, token_id)
