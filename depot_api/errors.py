"""How exceptions become problems: ours, the framework's and the database's. SQL text never leaves the service."""

from typing import Any

import psycopg
import structlog
from fastapi import FastAPI, Request, status
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from psycopg import errors
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Route

from depot_api import problems
from depot_api.blobstore.errors import BlobArchived, BlobUnreachable
from depot_api.database.pool import Unconfirmed
from depot_api.objects.models import BeingRestored
from depot_api.problems import Problem, ProblemError

RETRY_AFTER_SECONDS = 2
BUCKET_RETRY_SECONDS = 5
# nginx's number for a client that hung up; nobody receives it, but the log has it.
CLIENT_CLOSED_REQUEST = 499
METHOD_NOT_ALLOWED = 405

log = structlog.get_logger("depot_api")

_BY_STATUS: dict[int, type[Problem]] = {
    problem.status: problem
    for problem in (
        problems.Unauthenticated,
        problems.Forbidden,
        problems.NotFound,
        problems.BodyTooLarge,
        problems.Invalid,
    )
}


# What a statement that failed means to whoever asked, most particular first. Services name the cases that they expect.
_BY_DATABASE_ERROR: tuple[tuple[tuple[type[Exception], ...], Problem], ...] = (
    (
        (errors.InvalidAuthorizationSpecification,),
        problems.Unauthenticated("The token has expired or was revoked, or its account is gone or deactivated."),
    ),
    ((errors.InsufficientPrivilege,), problems.Forbidden("Your role does not allow this.")),
    (
        (errors.UniqueViolation, errors.RestrictViolation),
        problems.Conflict("This is in conflict with what is there. Read it again, then try again."),
    ),
    ((errors.ForeignKeyViolation,), problems.Conflict("Something that this refers to is not there any more.")),
    (
        (psycopg.DataError, errors.CheckViolation, errors.NotNullViolation),
        problems.Invalid("A value cannot be stored: out of range or against a rule."),
    ),
    (
        (errors.DeadlockDetected, errors.SerializationFailure, errors.LockNotAvailable),
        problems.Unavailable("Another change was in the way.", retry_after_seconds=RETRY_AFTER_SECONDS),
    ),
    (
        (errors.ReadOnlySqlTransaction,),
        problems.Unavailable("The database is changing its primary.", retry_after_seconds=RETRY_AFTER_SECONDS),
    ),
    (
        (Unconfirmed,),
        problems.Unavailable(
            "No standby has confirmed the change, so it may be lost or may be done. Send it again as it was, with the"
            " same Idempotency-Key if it had one.",
            retry_after_seconds=RETRY_AFTER_SECONDS,
        ),
    ),
    (
        (psycopg.OperationalError, psycopg.InterfaceError),
        problems.Unavailable("The database does not answer.", retry_after_seconds=RETRY_AFTER_SECONDS),
    ),
)
_UNEXPECTED = Problem("The service met an error that it did not expect. The log has it under the request id.")


async def _answer_problem(_request: Request, problem: Exception) -> Response:
    assert isinstance(problem, Problem)
    return problem.response()


async def _answer_database(request: Request, error: Exception) -> Response:
    assert isinstance(error, psycopg.Error)
    problem = next((known for kinds, known in _BY_DATABASE_ERROR if isinstance(error, kinds)), _UNEXPECTED)
    log.warning("database error", sqlstate=error.sqlstate, error=str(error), request_id=request.state.request_id)
    return problem.response()


async def _answer_validation(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if any(one["type"] == "json_invalid" for one in found):
        return problems.BadRequest("The body is not JSON.").response()
    named = [ProblemError(detail=one["msg"], pointer=_pointer(one)) for one in found[:100]]
    first = f"{named[0].pointer}: {named[0].detail}" if named else "The request is not valid."
    return problems.Invalid(first, errors=named).response()


def _pointer(error: dict[str, Any]) -> str:
    place = error["loc"][1:] if error["loc"][0] == "body" else error["loc"]
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in place)


def _allowed_methods(request: Request) -> str:
    """Of every route of the path: the framework's own answer knows only the first one."""
    path = request.url.path
    routes = [route for route in request.app.routes if isinstance(route, Route) and route.path_regex.match(path)]
    return ", ".join(sorted({method for route in routes for method in route.methods or ()}))


async def _answer_http(request: Request, error: Exception) -> Response:
    """The framework's own refusals: unknown route, wrong method, a body that cannot be parsed."""
    assert isinstance(error, HTTPException)
    known = _BY_STATUS.get(error.status_code)
    if known:
        return known(str(error.detail)).response()
    body = {
        "type": "about:blank",
        "title": str(error.detail),
        "status": error.status_code,
        "detail": str(error.detail),
        "errors": [],
    }
    headers = {"Allow": _allowed_methods(request)} if error.status_code == METHOD_NOT_ALLOWED else error.headers
    return JSONResponse(body, error.status_code, headers=headers, media_type=problems.MEDIA_TYPE)


async def _answer_archived(request: Request, error: Exception) -> Response:
    """No problem: the answer takes its time."""
    assert isinstance(error, BlobArchived)
    body = BeingRestored(detail="An archive restores the content. Ask again later.", sha256=list(error.hashes))
    retry_after_seconds: int = request.app.state.depot.settings.restore_retry_seconds
    return JSONResponse(body.model_dump(), status.HTTP_202_ACCEPTED, headers={"Retry-After": str(retry_after_seconds)})


async def _answer_unreachable(_request: Request, error: Exception) -> Response:
    assert isinstance(error, BlobUnreachable)
    log.error("content cannot be fetched", sha256=error.sha256, seen=str(error))
    detail = "The content lies in object storage, which does not answer. Ask again in a moment."
    return problems.Unavailable(detail, retry_after_seconds=BUCKET_RETRY_SECONDS).response()


async def _answer_disconnect(_request: Request, _error: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)


async def _answer_unexpected(request: Request, error: Exception) -> Response:
    log.error("unexpected error", request_id=request.state.request_id, exc_info=error)
    return _UNEXPECTED.response()


def install(app: FastAPI) -> None:
    app.add_exception_handler(Problem, _answer_problem)
    app.add_exception_handler(psycopg.Error, _answer_database)
    app.add_exception_handler(RequestValidationError, _answer_validation)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(BlobArchived, _answer_archived)
    app.add_exception_handler(BlobUnreachable, _answer_unreachable)
    app.add_exception_handler(ClientDisconnect, _answer_disconnect)
    app.add_exception_handler(Exception, _answer_unexpected)
