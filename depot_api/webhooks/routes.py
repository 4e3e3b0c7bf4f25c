"""/projects/{id}/webhooks"""

from uuid import UUID

from fastapi import APIRouter, status

from depot_api.idempotency import Key
from depot_api.identity.actor import CurrentUser
from depot_api.problems import Forbidden, IdempotencyKeyReused, ProjectArchived, documented
from depot_api.webhooks import service
from depot_api.webhooks.models import (
    Delivery,
    DeliveryStatus,
    Webhook,
    WebhookCreate,
    WebhookCreated,
    WebhookUpdate,
)
from depot_api.wire import Cursor, Limit, Page

router = APIRouter(prefix="/projects/{project_id}/webhooks", tags=["webhooks"])


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    summary="Create a webhook: each event is sent to it, signed, at least once and in order",
    responses=documented(Forbidden, ProjectArchived, IdempotencyKeyReused),
)
async def create_webhook(
    project_id: UUID, body: WebhookCreate, actor: CurrentUser, idempotency_key: Key = None
) -> WebhookCreated:
    """A delivery is a POST of an event. `X-Depot-Signature` is `sha256=` and the HMAC-SHA-256, in hex and under the
    webhook's secret, of `X-Depot-Timestamp`, a dot and the body. Anything but a 2xx within 10 s is tried again."""
    return await service.create_webhook(actor, project_id, body, idempotency_key)


@router.get("", summary="List a project's webhooks", responses=documented(Forbidden))
async def list_webhooks(
    project_id: UUID, actor: CurrentUser, limit: Limit = 100, cursor: Cursor = None
) -> Page[Webhook]:
    return await service.list_webhooks(actor, project_id, limit, cursor)


@router.get("/{webhook_id}", summary="Get a webhook", responses=documented(Forbidden))
async def get_webhook(project_id: UUID, webhook_id: UUID, actor: CurrentUser) -> Webhook:
    return await service.get_webhook(actor, project_id, webhook_id)


@router.patch(
    "/{webhook_id}",
    summary="Change a webhook, or switch it off and on",
    responses=documented(Forbidden, ProjectArchived),
)
async def update_webhook(project_id: UUID, webhook_id: UUID, body: WebhookUpdate, actor: CurrentUser) -> Webhook:
    return await service.update_webhook(actor, project_id, webhook_id, body)


@router.delete(
    "/{webhook_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    summary="Delete a webhook and its deliveries",
    responses=documented(Forbidden, ProjectArchived),
)
async def delete_webhook(project_id: UUID, webhook_id: UUID, actor: CurrentUser) -> None:
    await service.delete_webhook(actor, project_id, webhook_id)


@router.get(
    "/{webhook_id}/deliveries", summary="List a webhook's deliveries, newest first", responses=documented(Forbidden)
)
async def list_deliveries(
    project_id: UUID,
    webhook_id: UUID,
    actor: CurrentUser,
    status: DeliveryStatus | None = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[Delivery]:
    return await service.list_deliveries(actor, project_id, webhook_id, status, limit, cursor)


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}/replay",
    summary="Send a delivery again, also one that was given up",
    responses=documented(Forbidden, ProjectArchived),
)
async def replay_delivery(project_id: UUID, webhook_id: UUID, delivery_id: UUID, actor: CurrentUser) -> Delivery:
    return await service.replay_delivery(actor, project_id, webhook_id, delivery_id)
