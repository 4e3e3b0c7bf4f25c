"""Every error that the API answers, as an RFC 9457 problem with a stable type."""

from typing import Any, ClassVar

from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

MEDIA_TYPE = "application/problem+json"
SCHEMA_PLACE = "#/components/schemas/{model}"
TYPE_PREFIX = "urn:asset-depot:problem:"


class ProblemError(BaseModel):
    """One thing that is wrong: what, and where in the request (a JSON pointer, RFC 6901)."""

    detail: str
    pointer: str = ""


class ProblemDocument(BaseModel):
    """RFC 9457 problem details; some types add members of their own."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["urn:asset-depot:problem:not-found"])
    title: str
    status: int
    detail: str
    errors: list[ProblemError] = []


class Problem(Exception):
    """Raised anywhere below a route; becomes the response. `extra` are members that this type adds."""

    slug: ClassVar[str] = "internal-error"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    def __init__(
        self,
        detail: str,
        *,
        errors: list[ProblemError] | None = None,
        retry_after_seconds: int | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = errors or []
        self.retry_after_seconds = retry_after_seconds
        self.extra = extra

    def response(self) -> JSONResponse:
        body = {
            "type": TYPE_PREFIX + self.slug,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "errors": [error.model_dump() for error in self.errors],
            **self.extra,
        }
        headers = {"Retry-After": str(self.retry_after_seconds)} if self.retry_after_seconds is not None else {}
        if self.status == Unauthenticated.status:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(body, self.status, headers=headers, media_type=MEDIA_TYPE)


class BadRequest(Problem):
    slug, status, title = "bad-request", 400, "Bad request"


class Unauthenticated(Problem):
    slug, status, title = "unauthenticated", 401, "Sign in first"


class Forbidden(Problem):
    slug, status, title = "forbidden", 403, "Your role does not allow this"


class PathForbidden(Problem):
    slug, status, title = "path-forbidden", 403, "The permissions of the path do not allow this"


class NotFound(Problem):
    slug, status, title = "not-found", 404, "Not found"


class Conflict(Problem):
    slug, status, title = "conflict", 409, "In conflict with what is there"


class AlreadyExists(Problem):
    slug, status, title = "already-exists", 409, "Already exists"


class ProjectArchived(Problem):
    slug, status, title = "project-archived", 409, "The project is archived"


class ChangelistClosed(Problem):
    slug, status, title = "changelist-closed", 409, "The changelist is not open"


class NoTargetBranch(Problem):
    slug, status, title = "no-target-branch", 409, "The changelist has no target branch"


class EmptyChangelist(Problem):
    slug, status, title = "empty-changelist", 409, "The changelist has no items"


class StaleBase(Problem):
    slug, status, title = "stale-base", 409, "Someone else changed these paths first"


class MissingContent(Problem):
    slug, status, title = "missing-content", 409, "Content has not been sent"


class Locked(Problem):
    slug, status, title = "locked", 409, "Locked by someone else"


class StaleLockBase(Problem):
    slug, status, title = "stale-lock-base", 409, "You do not have the newest version"


class LockLost(Problem):
    slug, status, title = "lock-lost", 409, "The lock is not yours any more"


class LockRequired(Problem):
    slug, status, title = "lock-required", 409, "Changed only by who holds its lock"


class LeaseLost(Problem):
    slug, status, title = "lease-lost", 409, "The job is not yours any more"


class MergeClosed(Problem):
    slug, status, title = "merge-closed", 409, "The merge is finished"


class StillShown(Problem):
    slug, status, title = "still-shown", 409, "A branch still shows it"


class ReviewRequired(Problem):
    slug, status, title = "review-required", 409, "The branch asks for a review"


class ValidationRequired(Problem):
    slug, status, title = "validation-required", 409, "The branch asks for passed validations"


class PathInUse(Problem):
    slug, status, title = "path-in-use", 422, "The path collides with another"


class Obliterated(Problem):
    slug, status, title = "obliterated", 410, "The content was obliterated"


class LengthRequired(Problem):
    slug, status, title = "length-required", 411, "Say how many bytes you send"


class StalePrecondition(Problem):
    slug, status, title = "stale-precondition", 412, "Changed since you read it"


class PreconditionRequired(Problem):
    slug, status, title = "precondition-required", 428, "Say which state you have seen"


class BodyTooLarge(Problem):
    slug, status, title = "body-too-large", 413, "The body is too large"


class UnsupportedMediaType(Problem):
    slug, status, title = "unsupported-media-type", 415, "Media type not understood"


class RangeNotSatisfiable(Problem):
    slug, status, title = "range-not-satisfiable", 416, "The range lies outside the content"


class Invalid(Problem):
    slug, status, title = "invalid", 422, "Not valid"


class InvalidPath(Problem):
    slug, status, title = "invalid-path", 422, "Not a path that every system can store"


class HashMismatch(Problem):
    slug, status, title = "hash-mismatch", 422, "The bytes do not have that hash"


class IdempotencyKeyReused(Problem):
    slug, status, title = "idempotency-key-reused", 422, "Idempotency-Key used for another request"


class TooManyAttempts(Problem):
    slug, status, title = "too-many-attempts", 429, "Too many failed attempts"


class RateLimited(Problem):
    slug, status, title = "rate-limited", 429, "Too many requests"


class ContentDamaged(Problem):
    slug, status, title = "content-damaged", 502, "The stored content is damaged"


class Unavailable(Problem):
    slug, status, title = "unavailable", 503, "Not available right now"


class StorageFull(Problem):
    slug, status, title = "storage-full", 507, "The store has no room"


class QuotaExceeded(Problem):
    slug, status, title = "quota-exceeded", 507, "The project's quota has no room"


def documented(*problems: type[Problem]) -> dict[int | str, dict[str, Any]]:
    """A route's `responses` for OpenAPI: those it names, and those that any route can answer."""
    everywhere: tuple[type[Problem], ...] = (Unauthenticated, NotFound, Invalid, BodyTooLarge, BadRequest, Unavailable)
    titles: dict[int, list[str]] = {}
    for problem in problems + everywhere:
        titles.setdefault(problem.status, []).append(f"{problem.title} (`{problem.slug}`)")
    return {
        status: {
            "description": "; ".join(dict.fromkeys(named)),
            "content": {MEDIA_TYPE: {"schema": {"$ref": SCHEMA_PLACE.format(model=ProblemDocument.__name__)}}},
        }
        for status, named in titles.items()
    }


def describe(document: dict[str, Any]) -> dict[str, Any]:
    """Adds to an OpenAPI document what `documented` refers to."""
    schema = ProblemDocument.model_json_schema(ref_template=SCHEMA_PLACE)
    parts = schema.pop("$defs")
    document.setdefault("components", {}).setdefault("schemas", {}).update(parts, ProblemDocument=schema)
    return document
