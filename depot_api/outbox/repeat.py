"""How every reader of the outbox goes round."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

POLL_SECONDS = 0.5
RETRY_SECONDS = 5.0

log = structlog.get_logger("depot_api")


async def repeat(name: str, step: Callable[[], Awaitable[bool]], every_seconds: float = POLL_SECONDS) -> None:
    """Run `step` for ever: again at once while it says that there is more, else after a while."""
    while True:
        try:
            pause_seconds = 0.0 if await step() else every_seconds
        except Exception:
            # Whatever it is: a reader that ended would be missed by nobody, and the outbox keeps what is not done.
            log.exception("outbox step failed", consumer=name)
            pause_seconds = RETRY_SECONDS
        await asyncio.sleep(pause_seconds)
