"""Rules of webhooks: managers make them, see what became of each delivery, and replay."""

import secrets
from uuid import UUID

from depot_api import events
from depot_api.database.pool import Transaction
from depot_api.events import EventKind
from depot_api.idempotency import once
from depot_api.identity.actor import Actor
from depot_api.problems import Forbidden, Invalid, NotFound, ProblemError
from depot_api.projects import service as projects
from depot_api.projects.models import Project, ProjectRole
from depot_api.webhooks import queries
from depot_api.webhooks.models import (
    Delivery,
    DeliveryStatus,
    Webhook,
    WebhookCreate,
    WebhookCreated,
    WebhookUpdate,
)
from depot_api.webhooks.targets import TargetRefused, refuse_private_literal
from depot_api.wire import NIL, Page, decode_cursor, decode_uuid_cursor, encode_cursor

SECRET_BYTES = 32
NEWEST = 2**63 - 1


async def create_webhook(
    actor: Actor, project_id: UUID, wanted: WebhookCreate, idempotency_key: str | None
) -> WebhookCreated:
    async def create() -> WebhookCreated:
        secret = "whsec_" + secrets.token_urlsafe(SECRET_BYTES)
        await projects.writable_project(tx, project_id, ProjectRole.MANAGER)
        row = await queries.insert_webhook(tx, project_id, wanted.url, wanted.kinds, actor.user_id)
        await queries.set_secret(tx, row["id"], secret)
        await _record(tx, actor, project_id, EventKind.WEBHOOK_CREATED, row["id"])
        return WebhookCreated.model_validate({**row, "secret": secret})

    _refuse_private(actor, wanted.url)
    async with actor.transaction() as tx:
        request = f"create webhook {project_id} {wanted.model_dump_json()}"
        return await once(tx, actor.user_id, idempotency_key, request, WebhookCreated, create)


def _refuse_private(actor: Actor, url: str | None) -> None:
    """Only what the address itself says: a name is looked up at each delivery, when it counts."""
    if url is None or actor.depot.settings.webhook_allow_private:
        return
    try:
        refuse_private_literal(url)
    except TargetRefused as refusal:
        raise Invalid(
            f"{refusal}. Name one that is, or ask the operator to set WEBHOOK_ALLOW_PRIVATE.",
            errors=[ProblemError(detail=str(refusal), pointer="/url")],
        ) from None


async def _record(tx: Transaction, actor: Actor, project_id: UUID, kind: EventKind, webhook_id: UUID) -> None:
    await events.record(tx, project_id, kind, actor.user_id, {"webhook_id": str(webhook_id)})


async def _managed_project(tx: Transaction, project_id: UUID) -> Project:
    """Raises NotFound, or Forbidden to members below manager."""
    project = await projects.readable_project(tx, project_id)
    if not project.my_role.covers(ProjectRole.MANAGER):
        raise Forbidden(f"The webhooks of project {project.name} are for its managers; you are {project.my_role}.")
    return project


async def _readable_webhook(tx: Transaction, project_id: UUID, webhook_id: UUID) -> Webhook:
    project = await _managed_project(tx, project_id)
    row = await queries.webhook(tx, project_id, webhook_id)
    if row is None:
        raise NotFound(f"There is no webhook {webhook_id} in project {project.name}.")
    return Webhook.model_validate(row)


async def get_webhook(actor: Actor, project_id: UUID, webhook_id: UUID) -> Webhook:
    async with actor.transaction() as tx:
        return await _readable_webhook(tx, project_id, webhook_id)


async def list_webhooks(actor: Actor, project_id: UUID, limit: int, cursor: str | None) -> Page[Webhook]:
    after = decode_uuid_cursor(cursor) or NIL
    async with actor.transaction() as tx:
        await _managed_project(tx, project_id)
        rows = await queries.webhooks(tx, project_id, after, limit)
    items = [Webhook.model_validate(row) for row in rows]
    return Page(items=items, next_cursor=encode_cursor(str(items[-1].id)) if len(items) == limit else None)


async def update_webhook(actor: Actor, project_id: UUID, webhook_id: UUID, wanted: WebhookUpdate) -> Webhook:
    _refuse_private(actor, wanted.url)
    async with actor.transaction() as tx:
        await projects.writable_project(tx, project_id, ProjectRole.MANAGER)
        await _readable_webhook(tx, project_id, webhook_id)
        row = await queries.update_webhook(tx, webhook_id, wanted.url, wanted.kinds, wanted.is_active)
        await _record(tx, actor, project_id, EventKind.WEBHOOK_UPDATED, webhook_id)
    return Webhook.model_validate(row)


async def delete_webhook(actor: Actor, project_id: UUID, webhook_id: UUID) -> None:
    """With its deliveries, also those that are still pending."""
    async with actor.transaction() as tx:
        await projects.writable_project(tx, project_id, ProjectRole.MANAGER)
        await _readable_webhook(tx, project_id, webhook_id)
        await queries.delete_webhook(tx, webhook_id)
        await _record(tx, actor, project_id, EventKind.WEBHOOK_DELETED, webhook_id)


async def list_deliveries(
    actor: Actor, project_id: UUID, webhook_id: UUID, status: DeliveryStatus | None, limit: int, cursor: str | None
) -> Page[Delivery]:
    """Newest first."""
    before = decode_cursor(cursor, int)
    async with actor.transaction() as tx:
        await _readable_webhook(tx, project_id, webhook_id)
        rows = await queries.deliveries(tx, webhook_id, status, int(before[0]) if before else NEWEST, limit)
    items = [Delivery.model_validate(row) for row in rows]
    return Page(items=items, next_cursor=encode_cursor(rows[-1]["position"]) if len(rows) == limit else None)


async def replay_delivery(actor: Actor, project_id: UUID, webhook_id: UUID, delivery_id: UUID) -> Delivery:
    """Send it again, before what is still pending: it stands before those in the order of events."""
    async with actor.transaction() as tx:
        await projects.writable_project(tx, project_id, ProjectRole.MANAGER)
        await _readable_webhook(tx, project_id, webhook_id)
        row = await queries.replay(tx, webhook_id, delivery_id)
    if row is None:
        raise NotFound(f"There is no delivery {delivery_id} to this webhook.")
    return Delivery.model_validate(row)
