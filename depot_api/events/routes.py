"""/projects/{id}/events"""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header
from fastapi.responses import StreamingResponse

from depot_api.events import service
from depot_api.events.models import Event
from depot_api.identity.actor import CurrentUser
from depot_api.problems import documented
from depot_api.wire import Cursor, Limit, Page

router = APIRouter(prefix="/projects/{project_id}/events", tags=["events"])

EVENT_STREAM = "text/event-stream"


@router.get("", summary="List a project's events in the order of their commits", responses=documented())
async def list_events(project_id: UUID, actor: CurrentUser, after: Cursor = None, limit: Limit = 100) -> Page[Event]:
    """To follow them, ask again with `after` set to the last event's `cursor`."""
    return await service.list_events(actor, project_id, after, limit)


@router.get(
    "/stream",
    summary="Follow a project's events as server-sent events",
    response_class=StreamingResponse,
    responses={200: {"content": {EVENT_STREAM: {"schema": {"type": "string"}}}}, **documented()},
)
async def stream_events(
    project_id: UUID,
    actor: CurrentUser,
    after: Cursor = None,
    last_event_id: Annotated[str | None, Header(max_length=4096)] = None,
) -> StreamingResponse:
    """Each message's `id` is a cursor: `Last-Event-ID`, or `after`, goes on behind it. A comment each 15 s."""
    stream = await service.stream_events(actor, project_id, last_event_id or after)
    # Proxies that buffer would hold events back.
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(stream, media_type=EVENT_STREAM, headers=headers)
