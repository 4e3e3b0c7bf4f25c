"""/auth"""

from fastapi import APIRouter, Request
from pydantic import ValidationError

from depot_api.depot import DepotState
from depot_api.identity import service
from depot_api.identity.actor import CurrentUser
from depot_api.identity.models import AccessToken, Credentials, Me
from depot_api.problems import Invalid, ProblemError, TooManyAttempts, documented

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
    return await service.sign_in(depot, credentials, request.client.host if request.client else "")


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
