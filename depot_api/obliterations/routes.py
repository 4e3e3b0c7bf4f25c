"""/obliterations"""

from uuid import UUID

from fastapi import APIRouter

from depot_api.idempotency import Key
from depot_api.identity.actor import CurrentUser
from depot_api.obliterations import service
from depot_api.obliterations.models import Obliteration, ObliterationCreate, ObliterationPlan
from depot_api.problems import Conflict, Forbidden, IdempotencyKeyReused, StillShown, documented
from depot_api.wire import Cursor, Limit, Page

router = APIRouter(tags=["obliterations"])


@router.post(
    "/projects/{project_id}/obliterations",
    summary="Plan the removal of content from history, or request it",
    responses=documented(Forbidden, StillShown, IdempotencyKeyReused),
)
async def request_obliteration(
    project_id: UUID, body: ObliterationCreate, actor: CurrentUser, idempotency_key: Key = None
) -> ObliterationPlan:
    """A dry run unless `dry_run` is false. From then on the content answers 410; its history stays."""
    return await service.request_obliteration(actor, project_id, body, idempotency_key)


@router.get("/projects/{project_id}/obliterations", summary="List obliterations, newest first", responses=documented())
async def list_obliterations(
    project_id: UUID, actor: CurrentUser, limit: Limit = 100, cursor: Cursor = None
) -> Page[Obliteration]:
    return await service.list_obliterations(actor, project_id, limit, cursor)


@router.get("/obliterations/{obliteration_id}", summary="Get an obliteration", responses=documented())
async def get_obliteration(obliteration_id: UUID, actor: CurrentUser) -> Obliteration:
    return await service.get_obliteration(actor, obliteration_id)


@router.delete(
    "/obliterations/{obliteration_id}",
    summary="Take an obliteration back within its time of grace",
    responses=documented(Forbidden, Conflict),
)
async def cancel_obliteration(obliteration_id: UUID, actor: CurrentUser) -> Obliteration:
    return await service.cancel_obliteration(actor, obliteration_id)


@router.post(
    "/obliterations/{obliteration_id}/complete",
    summary="Remove the bytes, for good",
    responses=documented(Forbidden, Conflict),
)
async def complete_obliteration(obliteration_id: UUID, actor: CurrentUser) -> Obliteration:
    """From then on it cannot be taken back. Answers 503 while a copy cannot be changed; then it is done again."""
    return await service.complete_obliteration(actor, obliteration_id)
