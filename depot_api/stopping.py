"""Knowing that the service is about to stop, in time for answers that would otherwise never end."""

import asyncio
import signal
import threading
from types import FrameType


class Stopping:
    """uvicorn waits for open responses before it ends the lifespan, so an endless one has to hear of the signal."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def watch_signals(self) -> None:
        """From the event loop's thread. The server's own handlers still run."""
        if threading.current_thread() is not threading.main_thread():
            return  # only the main thread gets signals; a server in another one is stopped by other means
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            server_handler = signal.getsignal(number)

            def handle(received: int, frame: FrameType | None, after: object = server_handler) -> None:
                loop.call_soon_threadsafe(self._event.set)
                if callable(after):
                    after(received, frame)

            signal.signal(number, handle)

    async def wait(self, timeout_seconds: float) -> bool:
        """Whether the service stops; returns as soon as it does, or False after `timeout_seconds`."""
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self._event.wait()
        except TimeoutError:
            return False
