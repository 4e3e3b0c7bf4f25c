"""A TCP proxy between two servers, whose connections can be cut, stalled, or let through in one direction only."""

import asyncio
import threading
from contextlib import suppress
from enum import StrEnum

BLOCK_BYTES = 1 << 16


class LinkState(StrEnum):
    OPEN = "open"
    CUT = "cut"
    STALLED = "stalled"
    ONE_WAY = "one-way"
    """What the server sends arrives, what it is answered does not."""


class Link:
    """Listens on a port of its own for a server on another one."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._state = LinkState.OPEN
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Condition()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        started.wait()

    def turn(self, state: LinkState) -> None:
        asyncio.run_coroutine_threadsafe(self._set(state), self._loop).result(10)

    def close(self) -> None:
        self.turn(LinkState.CUT)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._connected, "127.0.0.1", 0))
        self.port: int = server.sockets[0].getsockname()[1]
        started.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))

    async def _set(self, state: LinkState) -> None:
        async with self._changed:
            self._state = state
            self._changed.notify_all()
        if state is LinkState.CUT:
            for writer in self._writers:
                writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._state is LinkState.CUT:
            writer.transport.abort()
            return
        try:
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, to_writer}
        self._writers |= both
        try:
            await asyncio.gather(
                self._forward(reader, to_writer, frozenset({LinkState.STALLED, LinkState.ONE_WAY})),
                self._forward(to_reader, writer, frozenset({LinkState.STALLED})),
            )
        except OSError:
            pass  # one end is gone: so is the other, then
        finally:
            self._writers -= both
            for one in both:
                one.transport.abort()

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, held_in: frozenset[LinkState]
    ) -> None:
        while data := await reader.read(BLOCK_BYTES):
            async with self._changed:
                await self._changed.wait_for(lambda: self._state not in held_in)
            writer.write(data)
            await writer.drain()
        with suppress(OSError):
            writer.write_eof()
