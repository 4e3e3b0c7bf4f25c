"""Events on the wire."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field


class Event(BaseModel):
    """One change. Other kinds and other members of `payload` come with time: skip what you do not know."""

    cursor: str = Field(description="Where this event stands: `after` or `Last-Event-ID` continues behind it.")
    id: int
    project_id: UUID
    kind: str = Field(examples=["changelist.submitted"])
    actor_id: UUID
    payload: dict[str, Any]
    created_at: datetime
