"""A limit on bytes a second that several threads share."""

import threading
import time


class RateLimit:
    """`spend` waits until the bytes fit; over any second or more the rate holds. None is no limit."""

    def __init__(self, bytes_per_second: int | None) -> None:
        self._bytes_per_second = bytes_per_second
        self._lock = threading.Lock()
        self._free_at = time.monotonic()

    def spend(self, size_bytes: int, stop: threading.Event) -> None:
        """Returns early when `stop` is set."""
        if self._bytes_per_second is None:
            return
        with self._lock:
            now = time.monotonic()
            begins = max(now, self._free_at)
            self._free_at = begins + size_bytes / self._bytes_per_second
        stop.wait(begins - now)
