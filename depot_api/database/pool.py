"""The connection pool, and the transaction with an identity that every request works in.

It follows the primary: connections to a server that is gone, demoted or of a past cluster epoch are dropped.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary, WeakSet

from psycopg import AsyncClientCursor, AsyncConnection, OperationalError
from psycopg.errors import Diagnostic, ReadOnlySqlTransaction, UndefinedFunction
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool
from psycopg_pool.base import AttemptWithBackoff

from depot_api.database.hosts import Hosts
from depot_api.epochs import EpochFile

Transaction = AsyncConnection[DictRow]

# A request that cannot get a connection in this time is better told to come back.
POOL_TIMEOUT_SECONDS = 5.0
CONNECT_TIMEOUT_SECONDS = 3
# How soon a connection that could not be made is tried again: the pool's own way doubles its pauses, from a second on.
RECONNECT_SECONDS = 0.25
TRUSTED_SECONDS = 1.0  # as long as a restart of the database takes at least
# A server that is gone without a word is noticed after this long.
TCP_TIMEOUT_MILLISECONDS = 10_000
SYNCHRONOUS_WAIT = "SyncRepWaitForLSN"


class SupersededServer(OperationalError):
    """The server is of a past cluster epoch: it was the primary once, and another one is now."""


class Unconfirmed(OperationalError):
    """Nobody knows whether what was written outlives the primary: no standby confirmed it."""


class _Steady(AttemptWithBackoff):
    """A new primary is there seconds after the old one is gone, and is found within a moment."""

    def update_delay(self, now: float) -> None:
        self.give_up_at = self.give_up_at or now + self.timeout
        self.delay = RECONNECT_SECONDS


class _Pool(AsyncConnectionPool[Transaction]):
    async def _add_connection(self, attempt: AttemptWithBackoff | None, growing: bool = False) -> None:
        await super()._add_connection(attempt or _Steady(timeout=self.reconnect_timeout), growing)


class Database:
    """Connections of one worker, all as the role depot_service."""

    def __init__(
        self, conninfo: str, min_size: int, max_size: int, epochs: EpochFile, commit_timeout_seconds: float
    ) -> None:
        self._epochs = epochs
        self._commit_timeout_seconds = commit_timeout_seconds
        self._unconfirmed: WeakSet[AsyncConnection[Any]] = WeakSet()
        self._hosts = Hosts(conninfo)
        self._epoch_of: WeakKeyDictionary[AsyncConnection[Any], int] = WeakKeyDictionary()
        self._admitted_at: WeakKeyDictionary[AsyncConnection[Any], float] = WeakKeyDictionary()
        self._renewed_at = 0.0
        self._pool = _Pool(
            self._hosts.conninfo,
            connection_class=AsyncConnection[DictRow],
            min_size=min_size,
            max_size=max(min_size, max_size),
            timeout=POOL_TIMEOUT_SECONDS,
            reconnect_timeout=POOL_TIMEOUT_SECONDS,
            configure=self.admit,
            check=self._check,
            kwargs={
                # A transaction is begun together with its identity, and one statement needs none: fewer round trips.
                "autocommit": True,
                "row_factory": dict_row,
                "connect_timeout": CONNECT_TIMEOUT_SECONDS,
                "tcp_user_timeout": TCP_TIMEOUT_MILLISECONDS,
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

    async def admit(self, connection: AsyncConnection[Any]) -> None:
        """Remember the epoch of a new connection's server. Raises SupersededServer when a later one is known."""
        connection.add_notice_handler(lambda notice: self._heed(connection, notice))
        await self._learn_epoch(connection)

    async def _learn_epoch(self, connection: AsyncConnection[Any]) -> None:
        try:
            row = await (await connection.execute("SELECT cluster_epoch() AS epoch")).fetchone()
        except UndefinedFunction:  # the schema is not migrated, which /health tells
            return
        assert row is not None
        epoch = row["epoch"] if isinstance(row, dict) else row[0]
        await asyncio.to_thread(self._epochs.raise_to, epoch)
        self._epoch_of[connection] = epoch
        self._admitted_at[connection] = time.monotonic()
        self.require_current(connection)
        self._hosts.try_first((connection.info.host, str(connection.info.port)))

    def require_current(self, connection: AsyncConnection[Any]) -> None:
        """Raises SupersededServer when a server of a later epoch has been seen, by whichever worker."""
        epoch, highest = self._epoch_of.get(connection), self._epochs.highest()
        if epoch is None or epoch >= highest:
            return
        info = connection.info
        self._hosts.try_last((info.host, str(info.port)))
        raise SupersededServer(
            f"the server at {info.host}:{info.port} is of the cluster epoch {epoch}, {highest} is known: it was the"
            " primary before. Stop it and run `depot-ops replica rejoin`; after restoring an older state on purpose,"
            " run `depot-ops replica adopt`"
        )

    def _heed(self, connection: AsyncConnection[Any], notice: Diagnostic) -> None:
        """A wait for a standby that is cancelled, by whomever, ends a commit with a warning and success.

        Told by where in the server it comes from: the text is in its language.
        """
        if notice.source_function == SYNCHRONOUS_WAIT:
            self._unconfirmed.add(connection)

    def _require_confirmed(self, connection: AsyncConnection[Any]) -> None:
        """Raises Unconfirmed. What was committed while another server was promoted may be on neither history."""
        if connection in self._unconfirmed:
            raise Unconfirmed("the wait for a standby was cancelled")
        try:
            self.require_current(connection)
        except SupersededServer as error:
            raise Unconfirmed(str(error)) from error

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        """A commit that no standby confirms would wait for ever."""
        try:
            async with asyncio.timeout(self._commit_timeout_seconds):
                yield
        except TimeoutError:
            raise Unconfirmed(f"not confirmed within {self._commit_timeout_seconds:g} s") from None

    async def _check(self, connection: Transaction) -> None:
        """Asks again now and then, not each time: it is a round trip. A new primary's epoch begins after it is one."""
        try:
            self.require_current(connection)
            if time.monotonic() - self._admitted_at.get(connection, 0.0) > TRUSTED_SECONDS:
                await self._learn_epoch(connection)
        except OperationalError:
            await self._drop(connection)
            raise

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Transaction]:
        async with self._pool.connection() as connection:
            self._unconfirmed.discard(connection)
            try:
                yield connection
                self._require_confirmed(connection)
            except ReadOnlySqlTransaction:
                # A switchover has begun, or it ended and this server is a standby: the next one looks for the primary.
                await self._drop(connection)
                raise
            finally:
                if connection.broken:
                    await self._drop(connection)

    async def _drop(self, connection: Transaction) -> None:
        """Close it, and have those made before replaced: they go to the same server, and each would cost a request."""
        await connection.close()
        if self._admitted_at.get(connection, 0.0) >= self._renewed_at:
            self._renewed_at = time.monotonic()
            await self._pool.drain()

    @asynccontextmanager
    async def anonymous(self) -> AsyncIterator[Transaction]:
        """A connection without identity: it sees no tenant's row. Each statement commits. For sign-in and health."""
        async with self._connection() as connection, self._in_time():
            yield connection

    @asynccontextmanager
    async def transaction(
        self,
        user_id: UUID,
        request_id: str,
        token_sha256: bytes | None = None,
        signed_in_at: datetime | None = None,
        *,
        keeps_plans: bool = False,
    ) -> AsyncIterator[Transaction]:
        """One transaction as this user: committed at the end of the block, rolled back when it raises.

        `token_sha256` is of the user's API token that was sent, which has to be live still; none for somebody who
        signed in, at `signed_in_at`, which has to be after the password was last changed. `keeps_plans`: each
        statement has one good plan whatever it is asked, and is not planned anew.
        """
        async with self._connection() as connection:
            begin = "BEGIN; SET LOCAL plan_cache_mode = force_generic_plan; " if keeps_plans else "BEGIN; "
            # Bound by the client, so that all of it is one message.
            cursor = AsyncClientCursor(connection)
            if token_sha256 is None:
                await cursor.execute(begin + "SELECT set_app_user(%s, %s, '', %s)", (user_id, request_id, signed_in_at))
            else:
                await cursor.execute(begin + "SELECT set_app_token(%s, %s)", (token_sha256, request_id))
            try:
                yield connection
                self.require_current(connection)
            except BaseException:
                await connection.rollback()
                raise
            async with self._in_time():
                await connection.commit()


async def fetch_one(tx: Transaction, query: Any, parameters: Any = None) -> DictRow | None:
    return await (await tx.execute(query, parameters)).fetchone()


async def fetch_all(tx: Transaction, query: Any, parameters: Any = None) -> list[DictRow]:
    return await (await tx.execute(query, parameters)).fetchall()
