"""/reviews, and reviews and comments of a changelist."""

from uuid import UUID

from fastapi import APIRouter, status

from depot_api.changelists.models import Changelist
from depot_api.idempotency import Key
from depot_api.identity.actor import CurrentUser
from depot_api.preconditions import IfMatch
from depot_api.problems import (
    ChangelistClosed,
    Conflict,
    Forbidden,
    IdempotencyKeyReused,
    InvalidPath,
    PathForbidden,
    PreconditionRequired,
    ProjectArchived,
    StalePrecondition,
    documented,
)
from depot_api.reviews import service
from depot_api.reviews.models import Comment, CommentCreate, Decision, Review, ReviewRequest
from depot_api.wire import Cursor, Limit, Page

router = APIRouter(tags=["reviews"])


@router.post(
    "/changelists/{changelist_id}/review-requests",
    summary="Ask for a review",
    responses=documented(Forbidden, ProjectArchived, ChangelistClosed, Conflict, StalePrecondition),
)
async def request_review(
    changelist_id: UUID, body: ReviewRequest, actor: CurrentUser, if_match: IfMatch = None
) -> Changelist:
    return await service.request_review(actor, changelist_id, body.reviewers, if_match)


@router.put(
    "/changelists/{changelist_id}/review",
    summary="Give your verdict on a changelist",
    responses=documented(Forbidden, ProjectArchived, ChangelistClosed, StalePrecondition, PreconditionRequired),
)
async def decide(changelist_id: UUID, body: Decision, actor: CurrentUser, if_match: IfMatch = None) -> Review:
    """`If-Match` is the ETag of the changelist as you have looked at it."""
    return await service.decide(actor, changelist_id, body, if_match)


@router.get("/reviews", summary="List reviews, newest first", responses=documented())
async def list_reviews(
    actor: CurrentUser,
    project_id: UUID | None = None,
    changelist_id: UUID | None = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[Review]:
    return await service.list_reviews(actor, project_id, changelist_id, limit, cursor)


@router.get("/reviews/pending", summary="List the reviews that wait for you, oldest first", responses=documented())
async def list_pending_reviews(actor: CurrentUser, limit: Limit = 100, cursor: Cursor = None) -> Page[Review]:
    return await service.pending_reviews(actor, limit, cursor)


@router.post(
    "/changelists/{changelist_id}/comments",
    status_code=status.HTTP_201_CREATED,
    summary="Comment on a changelist or one of its items",
    responses=documented(Forbidden, PathForbidden, ProjectArchived, InvalidPath, IdempotencyKeyReused),
)
async def create_comment(
    changelist_id: UUID, body: CommentCreate, actor: CurrentUser, idempotency_key: Key = None
) -> Comment:
    return await service.comment(actor, changelist_id, body, idempotency_key)


@router.get(
    "/changelists/{changelist_id}/comments",
    summary="List a changelist's comments, oldest first",
    responses=documented(),
)
async def list_comments(
    changelist_id: UUID, actor: CurrentUser, limit: Limit = 100, cursor: Cursor = None
) -> Page[Comment]:
    return await service.list_comments(actor, changelist_id, limit, cursor)
