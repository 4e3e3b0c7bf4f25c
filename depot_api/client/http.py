"""HTTP to the depot: one pool of connections, retries that are safe, and problems as exceptions."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from threading import Event
from typing import Any, cast
from urllib.parse import urlencode
from uuid import uuid4

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NameResolutionError, NewConnectionError, SSLError

from depot_api.client.problems import (
    BeingRestored,
    ConnectionLost,
    DepotError,
    OutcomeUnknown,
    ProblemError,
    Unreachable,
)

CHUNK_BYTES = 1 << 18  # large enough that the interpreter is idle most of the time, small enough to stop quickly
CONNECT_TIMEOUT_SECONDS = 30.0  # also bounds the sending of one chunk
READ_TIMEOUT_SECONDS = 300.0  # a submit of very many paths is one long transaction
BACK_OFF_SECONDS = (0.25, 0.5, 1.0, 2.0, 4.0)  # long enough for a service that is being restarted
# A depot that says itself when to come back is asked for as long as a failover takes, with Patroni's defaults too.
OUTAGE_SECONDS = 60.0
LONGEST_RETRY_AFTER_SECONDS = 30.0
SERVICE_UNAVAILABLE = 503
ACCEPTED = 202
RATE_LIMITED = "rate-limited"  # not every 429: who failed to sign in is told at once
FIRST_NOT_SUCCESS = 300
NEVER_SENT = (NewConnectionError, ConnectTimeoutError, NameResolutionError, SSLError)


@dataclass(frozen=True, slots=True)
class Body:
    """A request body of known size that can be produced again for another attempt."""

    size_bytes: int
    chunks: Callable[[], Iterable[bytes | memoryview]]
    content_type: str = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an answer is waited for, and after which pauses a request is sent again."""

    connect_seconds: float = CONNECT_TIMEOUT_SECONDS
    read_seconds: float = READ_TIMEOUT_SECONDS
    back_off_seconds: tuple[float, ...] = BACK_OFF_SECONDS


PATIENT = Patience()


@dataclass(frozen=True, slots=True)
class _Call:
    method: str
    address: str
    body: Body | None
    headers: dict[str, str]
    repeatable: bool
    stream: bool
    patient: bool


class _TryAgain(Exception):
    """An attempt failed in a way that another one may not; `error` is what to raise when none does."""

    def __init__(self, error: DepotError, pause_seconds: float = 0.0) -> None:
        super().__init__(str(error))
        self.error = error
        self.pause_seconds = pause_seconds


class Transport:
    """Thread-safe. Sends requests to one depot with one token."""

    def __init__(
        self, url: str, token: str | None, connections: int, patience: Patience = PATIENT, origin: str | None = None
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise Unreachable(f"{url!r} is not the address of a depot: it has to begin with http:// or https://.")
        self.url = url.rstrip("/")
        self.token = token
        self._pool = urllib3.PoolManager(
            maxsize=connections,
            block=False,
            blocksize=CHUNK_BYTES,
            timeout=urllib3.Timeout(connect=patience.connect_seconds, read=patience.read_seconds),
        )
        self._request_id_prefix = f"{origin}." if origin else ""
        self._back_off_seconds = patience.back_off_seconds
        self._closing = Event()
        self._has_answered = False

    def close(self) -> None:
        """Close idle connections and end the waiting between attempts."""
        self._closing.set()
        self._pool.clear()

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        document: object = None,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool | None = None,
        stream: bool = False,
        patient: bool = True,
        await_restore: bool = True,
    ) -> urllib3.BaseHTTPResponse:
        """Send one request and return its successful answer.

        `repeatable` says that sending it twice does no harm; GET, PUT and DELETE are, unless told
        otherwise. With `stream` the answer's body is left to be read with `read_chunks`. Without
        `patient` a 503 or a full rate is an answer like any other, and not waited out; without `await_restore` neither
        is the restore of content from an archive.

        Raises ProblemError (the depot refused), Unreachable (never sent), ConnectionLost, OutcomeUnknown
        and BeingRestored.
        """
        if document is not None:
            encoded = json.dumps(document).encode()
            body = Body(len(encoded), lambda: (encoded,), "application/json")
        if repeatable is None:
            repeatable = method in ("GET", "PUT", "DELETE")
        call = _Call(
            method, self._address(path, query), body, self._headers(body, headers), repeatable, stream, patient
        )
        while True:
            try:
                return self._persistently(call)
            except BeingRestored as wait:
                if not await_restore or self._closing.wait(wait.retry_after_seconds):
                    raise

    def _persistently(self, call: _Call) -> urllib3.BaseHTTPResponse:
        until = time.monotonic() + (OUTAGE_SECONDS if self._back_off_seconds else 0.0)
        delays = iter(self._back_off_seconds)
        while True:
            try:
                return self._attempt(call)
            except _TryAgain as again:
                delay = next(delays, None)
                if delay is None and (not again.pause_seconds or time.monotonic() > until):
                    raise again.error from again
                if self._closing.wait(max(delay or 0.0, again.pause_seconds)):
                    raise again.error from again

    def _attempt(self, call: _Call) -> urllib3.BaseHTTPResponse:
        try:
            response = self._pool.request(
                call.method,
                call.address,
                # urllib3 sends any bytes-like piece; its annotation knows only bytes.
                body=cast(Iterable[bytes], call.body.chunks()) if call.body else None,
                headers=call.headers,
                retries=False,
                redirect=False,
                preload_content=not call.stream,
                decode_content=not call.stream,
            )
        except NEVER_SENT as error:
            if not self._has_answered:  # a wrong address is told at once
                raise self._unreachable(error) from error
            raise _TryAgain(self._unreachable(error)) from error
        except HTTPError as error:
            if not call.repeatable:
                raise self._unknown(error) from error
            raise _TryAgain(self._lost(error)) from error
        self._has_answered = True
        retry_after_seconds = _retry_after_seconds(response)
        if response.status == ACCEPTED and retry_after_seconds is not None:
            response.drain_conn()
            raise BeingRestored(retry_after_seconds)
        if response.status < FIRST_NOT_SUCCESS:
            return response
        problem = _problem(response, call.headers["X-Request-Id"])
        not_done = response.status == SERVICE_UNAVAILABLE or problem.slug == RATE_LIMITED
        if call.patient and not_done and retry_after_seconds is not None:
            raise _TryAgain(problem, retry_after_seconds)
        raise problem

    def read_chunks(self, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        """The body of a streamed answer as it came over the wire. Raises ConnectionLost when it is cut off."""
        try:
            yield from response.stream(CHUNK_BYTES, decode_content=False)
        except HTTPError as error:
            raise self._lost(error) from error
        finally:
            response.close()

    def _headers(self, body: Body | None, more: Mapping[str, str] | None) -> dict[str, str]:
        headers = {"X-Request-Id": f"{self._request_id_prefix}{uuid4()}", "User-Agent": "asset-depot-client"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        if body:
            headers |= {"Content-Type": body.content_type, "Content-Length": str(body.size_bytes)}
        return headers | dict(more or {})

    def _address(self, path: str, query: Mapping[str, Any] | None) -> str:
        given = {name: value for name, value in (query or {}).items() if value is not None}
        return f"{self.url}{path}?{urlencode(given, doseq=True)}" if given else f"{self.url}{path}"

    def _unreachable(self, error: Exception) -> Unreachable:
        return Unreachable(
            f"The depot at {self.url} cannot be reached ({error}). "
            "Check the address and that the service runs, then run the same command again."
        )

    def _unknown(self, error: Exception) -> OutcomeUnknown:
        return OutcomeUnknown(
            f"The connection to {self.url} broke off ({error}); whether the depot did it is not known. "
            "Look before doing it again."
        )

    def _lost(self, error: Exception) -> ConnectionLost:
        return ConnectionLost(
            f"The connection to {self.url} broke off ({error}). "
            "Run the same command again: it goes on where it stopped."
        )


def _problem(response: urllib3.BaseHTTPResponse, request_id: str) -> ProblemError:
    try:
        document = json.loads(response.data)
    except ValueError:  # a proxy in between answers in its own way
        document = {}
    return ProblemError(response.status, document if isinstance(document, dict) else {}, request_id)


def _retry_after_seconds(response: urllib3.BaseHTTPResponse) -> float | None:
    value = response.headers.get("Retry-After", "")
    return min(float(value), LONGEST_RETRY_AFTER_SECONDS) if value.isdigit() else None
