"""What surrounds every request: its id, its size limit, its log line and its metrics."""

import re
import time
import uuid

import structlog
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from depot_api.metrics import REQUEST_SECONDS

# 10,000 items of a changelist with long paths fit; more is not a request but an upload.
MAX_BODY_BYTES = 8 << 20
# Bodies of any size stream through these.
UPLOADS = re.compile(r"/projects/[^/]+/objects/(pack|[0-9a-f]{64})|/assets/[^/]+/versions/upload")
REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,100}")

log = structlog.get_logger("depot_api")


class RequestContext:
    """Pure ASGI, so that bodies stream through it untouched."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        status = 500

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", request_id.encode()),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        try:
            await self.app(scope, _limited(scope, receive), send_marked)
        finally:
            seconds = time.perf_counter() - started
            route = getattr(scope.get("route"), "path", "unknown")
            REQUEST_SECONDS.labels(scope["method"], route, str(status)).observe(seconds)
            log.info(
                "request",
                method=scope["method"],
                path=scope["path"],
                status=status,
                duration_seconds=round(seconds, 6),
                request_id=request_id,
            )


def _request_id(scope: Scope) -> str:
    sent = dict(scope["headers"]).get(b"x-request-id", b"")
    return sent.decode() if REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex


def _limited(scope: Scope, receive: Receive) -> Receive:
    """Raises 413 while reading, so that a body is never held that is larger than any request needs."""
    if UPLOADS.fullmatch(scope["path"]):
        return receive
    received_bytes = 0

    async def limited() -> Message:
        nonlocal received_bytes
        message = await receive()
        received_bytes += len(message.get("body", b""))
        if received_bytes > MAX_BODY_BYTES:
            raise HTTPException(413, f"The body is larger than {MAX_BODY_BYTES} bytes. Send it in parts.")
        return message

    return limited
