"""The audit log on the wire."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field


class AuditRow(BaseModel):
    """Who changed which row, and how it was before and after. Written by the database itself."""

    id: int
    table_name: str
    operation: str = Field(examples=["INSERT", "UPDATE", "DELETE"])
    actor_id: UUID | None
    request_id: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    recorded_at: datetime
