"""Reading the outbox: by cursor in pages, or as a stream that goes on."""

from collections.abc import AsyncIterator, Mapping
from typing import Any
from uuid import UUID

import psycopg
import structlog

from depot_api.database.pool import Transaction
from depot_api.events import queries
from depot_api.events.models import Event
from depot_api.identity.actor import Actor
from depot_api.problems import Invalid, Problem, ProblemError
from depot_api.projects import service as projects
from depot_api.wire import Page, decode_cursor, encode_cursor

STREAM_BATCH_EVENTS = 500
STREAM_POLL_SECONDS = 1.0
HEARTBEAT_SECONDS = 15.0
# The client comes back with Last-Event-ID, and its token is looked at anew.
STREAM_SECONDS = 900.0
# The id that no event has.
BEGINNING = 0

log = structlog.get_logger("depot_api")


def event_of(row: Mapping[str, Any]) -> Event:
    return Event.model_validate({**row, "cursor": encode_cursor(row["id"])})


def _event_id(cursor: str | None) -> int:
    key = decode_cursor(cursor, int)
    return int(key[0]) if key else BEGINNING


async def list_events(actor: Actor, project_id: UUID, after: str | None, limit: int) -> Page[Event]:
    """Oldest first."""
    after_id = _event_id(after)
    async with actor.transaction() as tx:
        items = await _events_after(tx, project_id, after_id, limit)
    return Page(items=items, next_cursor=items[-1].cursor if len(items) == limit else None)


async def _events_after(tx: Transaction, project_id: UUID, after_id: int, limit: int) -> list[Event]:
    xact_id = await _place(tx, project_id, after_id)
    return [event_of(row) for row in await queries.events(tx, project_id, xact_id, after_id, limit)]


async def _place(tx: Transaction, project_id: UUID, event_id: int) -> str:
    """Raises NotFound for the project, or Invalid when it has no such event."""
    await projects.readable_project(tx, project_id)
    xact_id = "0" if event_id == BEGINNING else await queries.xact_id_of(tx, project_id, event_id)
    if xact_id is None:
        raise Invalid(
            "The event that the cursor names is not in this project; a restore may have taken it away. Leave the "
            "cursor out to begin again.",
            errors=[ProblemError(detail="no such event", pointer="/after")],
        )
    return xact_id


async def stream_events(actor: Actor, project_id: UUID, after: str | None) -> AsyncIterator[bytes]:
    """Server-sent events. What can be refused is refused before the first byte."""
    after_id = _event_id(after)
    async with actor.transaction() as tx:
        await _place(tx, project_id, after_id)
    return _stream(actor, project_id, after_id)


async def _stream(actor: Actor, project_id: UUID, after_id: int) -> AsyncIterator[bytes]:
    """Ends when the service stops, when the asker may not read any more, or after STREAM_SECONDS."""
    yield b": connected\n\n"
    streamed_seconds = silent_seconds = 0.0
    while streamed_seconds < STREAM_SECONDS:
        try:
            async with actor.transaction() as tx:
                events = await _events_after(tx, project_id, after_id, STREAM_BATCH_EVENTS)
        except (Problem, psycopg.Error) as error:
            log.info("event stream ended", request_id=actor.request_id, reason=str(error))
            return
        for event in events:
            yield _message(event)
        if events:
            after_id, silent_seconds = events[-1].id, 0.0
        if silent_seconds >= HEARTBEAT_SECONDS:
            yield b": heartbeat\n\n"
            silent_seconds = 0.0
        if await actor.depot.stopping.wait(STREAM_POLL_SECONDS if len(events) < STREAM_BATCH_EVENTS else 0.0):
            return
        streamed_seconds += STREAM_POLL_SECONDS
        silent_seconds += STREAM_POLL_SECONDS


def _message(event: Event) -> bytes:
    # JSON holds no raw line break, so it is one data line.
    return f"id: {event.cursor}\nevent: {event.kind}\ndata: {event.model_dump_json()}\n\n".encode()
