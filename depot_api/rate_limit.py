"""So that one tool that runs wild does not crowd the others out: a token bucket for each caller, in each worker."""

import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from depot_api.problems import RateLimited

# A caller may save up as much, so that a page of thumbnails comes at once.
BURST_SECONDS = 10.0
# A bucket that was not used for so many others is forgotten, which fills it.
MAX_CALLERS = 10_000
# Asked by whoever supervises the service, which must never look dead because it is busy.
EXEMPT = frozenset({"/health", "/metrics"})


class Buckets:
    """For each caller, how many requests may still come at once; fills with time."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_second = per_second
        self.size = max(1.0, per_second * BURST_SECONDS)
        self._clock = clock
        self._callers: OrderedDict[bytes, tuple[float, float]] = OrderedDict()

    def take(self, caller: bytes) -> float:
        """0.0 where the request may pass, else the seconds after which one may."""
        now = self._clock()
        left, at = self._callers.pop(caller, (self.size, now))
        left = min(self.size, left + (now - at) * self.per_second)
        passes = left >= 1.0
        self._callers[caller] = (left - passes, now)
        if len(self._callers) > MAX_CALLERS:
            self._callers.popitem(last=False)
        return 0.0 if passes else (1.0 - left) / self.per_second


class RateLimit:
    """Pure ASGI. A caller is a token, or where there is none an address; the token is not looked at yet."""

    def __init__(self, app: ASGIApp, per_second: float) -> None:
        self.app = app
        self._buckets = Buckets(per_second)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in EXEMPT:
            await self.app(scope, receive, send)
            return
        wait_seconds = self._buckets.take(_caller(scope))
        if not wait_seconds:
            await self.app(scope, receive, send)
            return
        problem = RateLimited(
            f"More than {self._buckets.per_second:g} requests a second. Nothing was done; wait for Retry-After.",
            retry_after_seconds=math.ceil(wait_seconds),
        )
        await problem.response()(scope, receive, send)


def _caller(scope: Scope) -> bytes:
    token = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    if token:
        return hashlib.sha256(token).digest()  # no token lies about in memory, and none is longer than another
    client = scope.get("client")
    return client[0].encode() if client else b""
