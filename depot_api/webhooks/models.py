"""Webhooks and their deliveries on the wire."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, BaseModel, Field

from depot_api.events import EventKind
from depot_api.webhooks.targets import check_url
from depot_api.wire import Boolean, Text, WireModel

Url = Annotated[Text, Field(max_length=2048, examples=["https://ci.example.com/depot"]), AfterValidator(check_url)]
Kinds = Annotated[list[EventKind], Field(max_length=100, description="Which events; every kind when empty.")]


class DeliveryStatus(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"


class WebhookCreate(WireModel):
    url: Url
    kinds: Kinds = Field(default=[])


class WebhookUpdate(WireModel):
    """What is left out stays."""

    url: Url | None = None
    kinds: Kinds | None = None
    is_active: Boolean | None = Field(default=None, description="An inactive webhook gets no new events; others wait.")


class Webhook(BaseModel):
    id: UUID
    project_id: UUID
    url: str
    kinds: list[str]
    is_active: bool
    created_by: UUID
    created_at: datetime


class WebhookCreated(Webhook):
    secret: str = Field(description="Key of the signatures. Shown now and never again.")


class Delivery(BaseModel):
    """One event on its way to one webhook. A pending one holds up those behind it."""

    id: UUID
    webhook_id: UUID
    event_id: int
    kind: str
    status: DeliveryStatus
    attempts: int
    next_attempt_at: datetime
    last_status: int | None = Field(description="HTTP status of the last attempt, null when there was no answer.")
    last_error: str | None
    created_at: datetime
    delivered_at: datetime | None
