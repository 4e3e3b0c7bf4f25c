"""SQL of webhooks. Managers' statements run under their identity; delivery goes through SECURITY DEFINER functions."""

from collections.abc import Sequence
from uuid import UUID

from psycopg.rows import DictRow

from depot_api.database.pool import Transaction, fetch_all, fetch_one

_COLUMNS = "id, project_id, url, kinds, is_active, created_by, created_at"
_DELIVERY = """
    SELECT d.id, d.webhook_id, d.event_id, e.kind, d.status, d.attempts, d.next_attempt_at, d.last_status, d.last_error,
           d.created_at, d.delivered_at, d.position
    FROM webhook_deliveries d JOIN events e ON e.id = d.event_id
"""


async def insert_webhook(tx: Transaction, project_id: UUID, url: str, kinds: Sequence[str], by: UUID) -> DictRow:
    row = await fetch_one(
        tx,
        f"INSERT INTO webhooks (project_id, url, kinds, created_by) VALUES (%s, %s, %s, %s) RETURNING {_COLUMNS}",
        (project_id, url, list(kinds), by),
    )
    assert row is not None
    return row


async def set_secret(tx: Transaction, webhook_id: UUID, secret: str) -> None:
    await tx.execute("SELECT set_webhook_secret(%s, %s)", (webhook_id, secret))


async def webhook(tx: Transaction, project_id: UUID, webhook_id: UUID) -> DictRow | None:
    return await fetch_one(
        tx, f"SELECT {_COLUMNS} FROM webhooks WHERE project_id = %s AND id = %s", (project_id, webhook_id)
    )


async def webhooks(tx: Transaction, project_id: UUID, after: UUID, limit: int) -> list[DictRow]:
    return await fetch_all(
        tx,
        f"SELECT {_COLUMNS} FROM webhooks WHERE project_id = %s AND id > %s ORDER BY id LIMIT %s",
        (project_id, after, limit),
    )


async def update_webhook(
    tx: Transaction, webhook_id: UUID, url: str | None, kinds: Sequence[str] | None, is_active: bool | None
) -> DictRow:
    row = await fetch_one(
        tx,
        f"""UPDATE webhooks SET url = coalesce(%s, url), kinds = coalesce(%s, kinds),
                is_active = coalesce(%s, is_active)
            WHERE id = %s RETURNING {_COLUMNS}""",
        (url, None if kinds is None else list(kinds), is_active, webhook_id),
    )
    assert row is not None
    return row


async def delete_webhook(tx: Transaction, webhook_id: UUID) -> None:
    await tx.execute("DELETE FROM webhooks WHERE id = %s", (webhook_id,))


async def deliveries(tx: Transaction, webhook_id: UUID, status: str | None, before: int, limit: int) -> list[DictRow]:
    """Newest first, with `position`."""
    return await fetch_all(
        tx,
        _DELIVERY
        + """WHERE d.webhook_id = %(webhook)s AND d.position < %(before)s
               AND (%(status)s::delivery_status IS NULL OR d.status = %(status)s)
             ORDER BY d.position DESC LIMIT %(limit)s""",
        {"webhook": webhook_id, "before": before, "status": status, "limit": limit},
    )


async def replay(tx: Transaction, webhook_id: UUID, delivery_id: UUID) -> DictRow | None:
    """Pending again, as if never tried; it is sent under the same delivery id."""
    await tx.execute(
        """UPDATE webhook_deliveries
           SET status = 'pending', attempts = 0, next_attempt_at = now(), delivered_at = NULL
           WHERE webhook_id = %s AND id = %s""",
        (webhook_id, delivery_id),
    )
    return await fetch_one(tx, _DELIVERY + "WHERE d.webhook_id = %s AND d.id = %s", (webhook_id, delivery_id))


# Delivery, in the background and for all tenants. --------------------------------------------------------------------


async def fan_out(tx: Transaction, max_events: int) -> int:
    """How many events were new; for each there is then a delivery to each webhook that wants it."""
    row = await fetch_one(tx, "SELECT fan_out_webhooks(%s) AS events", (max_events,))
    assert row is not None
    return int(row["events"])


async def due_deliveries(tx: Transaction, webhook_id: UUID | None = None) -> list[DictRow]:
    return await fetch_all(
        tx,
        """SELECT id AS delivery_id, webhook_id, attempts, url, secret, event_id, project_id,
                  kind, actor_id, payload, created_at
           FROM due_deliveries(%s)""",
        (webhook_id,),
    )


async def record_delivery(
    tx: Transaction,
    delivery_id: UUID,
    delivered: bool,
    http_status: int | None,
    error: str | None,
    retry_seconds: float | None,
) -> None:
    await tx.execute(
        "SELECT record_delivery(%s, %s, %s, %s, %s)", (delivery_id, delivered, http_status, error, retry_seconds)
    )
