"""Sending events to webhooks: at least once, and in order for each; a webhook that fails holds up only itself."""

import asyncio
import hashlib
import hmac
import time
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
import structlog
from psycopg.rows import DictRow

from depot_api.depot import Depot
from depot_api.events.service import event_of
from depot_api.outbox.repeat import repeat
from depot_api.webhooks import queries
from depot_api.webhooks.targets import TargetRefused, resolve

BATCH_EVENTS = 1_000
TIMEOUT_SECONDS = 10.0
MAX_RETRY_SECONDS = 3600.0
MAX_ERROR_CHARACTERS = 500
MAX_CONCURRENT = 32

log = structlog.get_logger("depot_api")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt went; `error` is None when it was delivered."""

    http_status: int | None
    error: str | None


class Deliverer:
    """The leader's. Each webhook with something due has one task that sends until nothing is due or one fails."""

    def __init__(self, depot: Depot) -> None:
        self._depot = depot
        self._sending: set[UUID] = set()

    async def run(self) -> None:
        """Never returns."""
        # No proxy and no cookies: nothing of the service's own surroundings goes along.
        limits = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(trust_env=False, limits=limits) as client, asyncio.TaskGroup() as group:
            await repeat("webhooks", lambda: self._step(client, group))

    async def _step(self, client: httpx.AsyncClient, group: asyncio.TaskGroup) -> bool:
        async with self._depot.database.anonymous() as tx:
            new_events = await queries.fan_out(tx, BATCH_EVENTS)
            due = await queries.due_deliveries(tx)
        for webhook_id in [row["webhook_id"] for row in due if row["webhook_id"] not in self._sending]:
            if len(self._sending) == MAX_CONCURRENT:
                break
            self._sending.add(webhook_id)
            group.create_task(self._send_due(client, webhook_id))
        return new_events == BATCH_EVENTS

    async def _send_due(self, client: httpx.AsyncClient, webhook_id: UUID) -> None:
        try:
            while await self._send_next(client, webhook_id):
                pass
        except Exception:
            # Nothing was recorded, so it stays pending, and the next step comes back to it.
            log.exception("webhook delivery failed", webhook_id=str(webhook_id))
        finally:
            self._sending.discard(webhook_id)

    async def _send_next(self, client: httpx.AsyncClient, webhook_id: UUID) -> bool:
        """Whether one was due and is settled, so that the next may follow. No transaction is open while sending."""
        async with self._depot.database.anonymous() as tx:
            due = await queries.due_deliveries(tx, webhook_id)
        if not due:
            return False
        outcome = await send(client, due[0], self._depot.settings.webhook_allow_private)
        attempts = due[0]["attempts"] + 1
        given_up = outcome.error is not None and attempts >= self._depot.settings.webhook_max_attempts
        async with self._depot.database.anonymous() as tx:
            await queries.record_delivery(
                tx,
                due[0]["delivery_id"],
                outcome.error is None,
                outcome.http_status,
                outcome.error,
                None if given_up else self._wait_seconds(attempts),
            )
        return outcome.error is None or given_up

    def _wait_seconds(self, attempts: int) -> float:
        doubled = self._depot.settings.webhook_retry_seconds * 2.0 ** min(attempts - 1, 30)
        return min(doubled, MAX_RETRY_SECONDS)


async def send(client: httpx.AsyncClient, delivery: DictRow, allow_private: bool) -> Outcome:
    """One attempt. The answer's body is not read."""
    body = event_of({**delivery, "id": delivery["event_id"]}).model_dump_json().encode()
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            target = await resolve(delivery["url"], allow_private)
            headers = {"Host": target.netloc, **signed_headers(delivery, body)}
            # The connection goes to the address that was checked; TLS still asks for the name's certificate.
            extensions = {"sni_hostname": target.host}
            request = client.stream("POST", target.url, content=body, headers=headers, extensions=extensions)
            async with request as response:
                status = response.status_code
    except TimeoutError:
        return Outcome(None, f"no answer within {TIMEOUT_SECONDS:.0f} s")
    except (TargetRefused, httpx.HTTPError, httpx.InvalidURL) as error:
        return Outcome(None, f"{type(error).__name__}: {error}"[:MAX_ERROR_CHARACTERS])
    return Outcome(status, None if httpx.codes.is_success(status) else f"answered {status} instead of 2xx")


def signed_headers(delivery: dict[str, Any], body: bytes) -> dict[str, str]:
    timestamp = str(int(time.time()))
    signature = hmac.new(delivery["secret"].encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    return {
        "Content-Type": "application/json",
        "User-Agent": "asset-depot",
        "X-Depot-Event": delivery["kind"],
        "X-Depot-Delivery": str(delivery["delivery_id"]),
        "X-Depot-Timestamp": timestamp,
        "X-Depot-Signature": f"sha256={signature}",
    }
