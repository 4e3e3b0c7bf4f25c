"""The connection pool, and the transaction with an identity that every request works in."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary

from psycopg import AsyncClientCursor, AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool

Transaction = AsyncConnection[DictRow]

# A request that cannot get a connection in this time is better told to come back.
POOL_TIMEOUT_SECONDS = 5.0
CONNECT_TIMEOUT_SECONDS = 3
TRUSTED_SECONDS = 1.0  # as long as a restart of the database takes at least


class Database:
    """Connections of one worker, all as the role depot_service."""

    def __init__(self, conninfo: str, min_size: int, max_size: int) -> None:
        self._used_at: WeakKeyDictionary[Transaction, float] = WeakKeyDictionary()
        self._pool: AsyncConnectionPool[Transaction] = AsyncConnectionPool(
            conninfo,
            connection_class=AsyncConnection[DictRow],
            min_size=min_size,
            max_size=max(min_size, max_size),
            timeout=POOL_TIMEOUT_SECONDS,
            reconnect_timeout=POOL_TIMEOUT_SECONDS,
            check=self._check_if_rested,
            kwargs={
                # A transaction is begun together with its identity, and one statement needs none: fewer round trips.
                "autocommit": True,
                "row_factory": dict_row,
                "connect_timeout": CONNECT_TIMEOUT_SECONDS,
                "application_name": "depot_api",
            },
            open=False,
        )

    async def open(self) -> None:
        """Starts filling the pool; does not wait, so that the service can say what it lacks."""
        await self._pool.open(wait=False)

    async def close(self) -> None:
        await self._pool.close()

    def stats(self) -> dict[str, int]:
        return self._pool.get_stats()

    async def _check_if_rested(self, connection: Transaction) -> None:
        """A connection that has just worked still does; asking each time would be a round trip for every request."""
        if time.monotonic() - self._used_at.get(connection, 0.0) > TRUSTED_SECONDS:
            await AsyncConnectionPool.check_connection(connection)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Transaction]:
        async with self._pool.connection() as connection:
            yield connection
            self._used_at[connection] = time.monotonic()

    @asynccontextmanager
    async def anonymous(self) -> AsyncIterator[Transaction]:
        """A connection without identity: it sees no tenant's row. Each statement commits. For sign-in and health."""
        async with self._connection() as connection:
            yield connection

    @asynccontextmanager
    async def transaction(
        self, user_id: UUID, request_id: str, token_sha256: bytes | None = None, *, keeps_plans: bool = False
    ) -> AsyncIterator[Transaction]:
        """One transaction as this user: committed at the end of the block, rolled back when it raises.

        `token_sha256` is of the user's API token that was sent, which has to be live still; none for somebody who
        signed in. `keeps_plans`: each statement has one good plan whatever it is asked, and is not planned anew.
        """
        async with self._connection() as connection:
            begin = "BEGIN; SET LOCAL plan_cache_mode = force_generic_plan; " if keeps_plans else "BEGIN; "
            # Bound by the client, so that all of it is one message.
            cursor = AsyncClientCursor(connection)
            if token_sha256 is None:
                await cursor.execute(begin + "SELECT set_app_user(%s, %s)", (user_id, request_id))
            else:
                await cursor.execute(begin + "SELECT set_app_token(%s, %s)", (token_sha256, request_id))
            try:
                yield connection
            except BaseException:
                await connection.rollback()
                raise
            await connection.commit()


async def fetch_one(tx: Transaction, query: Any, parameters: Any = None) -> DictRow | None:
    return await (await tx.execute(query, parameters)).fetchone()


async def fetch_all(tx: Transaction, query: Any, parameters: Any = None) -> list[DictRow]:
    return await (await tx.execute(query, parameters)).fetchall()
