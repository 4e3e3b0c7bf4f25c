"""The outbox's readers and housekeeping: of all workers of a deployment one runs them, the others wait to take over."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import structlog

from depot_api.depot import Depot
from depot_api.outbox import housekeeping, refs
from depot_api.outbox.repeat import repeat
from depot_api.webhooks.delivery import Deliverer

# Whoever holds it leads. It is the session's, so it goes with the process, however that dies.
LEADER_LOCK = "SELECT pg_try_advisory_lock(hashtext('asset-depot outbox')) AS leads"
WAIT_FOR_LEAD_SECONDS = 1.0
RETRY_SECONDS = 5.0
# A server that is gone without a word is noticed after this long.
TCP_TIMEOUT_MILLISECONDS = 10_000

log = structlog.get_logger("depot_api")


class OutboxWorker:
    def __init__(self, depot: Depot) -> None:
        self._depot = depot

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The worker runs beside the block and is gone after it."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                await self._lead()
            except* (psycopg.Error, OSError) as errors:
                log.warning("outbox lead lost", error=str(errors.exceptions[0]))
            await asyncio.sleep(RETRY_SECONDS)

    async def _lead(self) -> None:
        """Wait for the lead, then read until it is lost. Raises psycopg.Error, alone or in a group."""
        connection = await psycopg.AsyncConnection.connect(
            self._depot.settings.database_conninfo,
            autocommit=True,
            application_name="depot_api outbox",
            connect_timeout=3,
            tcp_user_timeout=TCP_TIMEOUT_MILLISECONDS,
        )
        async with connection:
            await self._depot.database.admit(connection)
            await _take_lead(connection)
            row = await (await connection.execute("SELECT adopt_restored_events()")).fetchone()
            log.info("outbox lead taken", restored_events_adopted=bool(row and row[0]))
            async with asyncio.TaskGroup() as group:
                group.create_task(_hold(self._depot, connection))
                group.create_task(repeat("refs", lambda: refs.write_next(self._depot)))
                group.create_task(
                    repeat("housekeeping", lambda: housekeeping.keep_house(self._depot), housekeeping.EVERY_SECONDS)
                )
                group.create_task(Deliverer(self._depot).run())


async def _take_lead(connection: psycopg.AsyncConnection) -> None:
    """Tried again and again instead of waited for: a session that waits in a statement holds back vacuum."""
    while True:
        row = await (await connection.execute(LEADER_LOCK)).fetchone()
        if row and row[0]:
            return
        await asyncio.sleep(WAIT_FOR_LEAD_SECONDS)


async def _hold(depot: Depot, connection: psycopg.AsyncConnection) -> None:
    """Raises as soon as the session that holds the lock is gone, or its server is the primary no more."""
    while True:
        depot.database.require_current(connection)
        await connection.execute("SELECT 1")
        await asyncio.sleep(WAIT_FOR_LEAD_SECONDS)
