"""The audit log on the wire."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field


class AuditRow(BaseModel):
    """Who changed what, and how it was before and after. Written by the database itself.

    Of items and new assets there is one for each statement: `before` and `after` say how many `rows` it changed and
    hold the `first` hundred of them.
    """

    id: int
    table_name: str
    operation: str = Field(examples=["INSERT", "UPDATE", "DELETE"])
    actor_id: UUID | None
    request_id: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    recorded_at: datetime
