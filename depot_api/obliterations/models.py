"""Obliterations on the wire."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field, model_validator

from depot_api.patterns import Pattern
from depot_api.wire import Boolean, Integer, Text, WireModel

MAX_VERSIONS = 100_000  # of one obliteration: what one answer can still list in its counts


class ObliterationStatus(StrEnum):
    REQUESTED = "requested"
    CONDEMNED = "condemned"
    """Its bytes are being removed, or could not be: it can only be completed."""
    COMPLETED = "completed"
    CANCELLED = "cancelled"


class ObliterationCreate(WireModel):
    asset_id: UUID | None = Field(default=None, description="One asset; or else a pattern.")
    pattern: Pattern | None = Field(default=None, description="Every asset whose path matches.")
    versions: list[Annotated[Integer, Field(ge=1, le=2**31 - 1)]] | None = Field(
        default=None, min_length=1, max_length=1000, description="Of the one asset; all of them when left out."
    )
    reason: Text = Field(min_length=1, max_length=10_000)
    dry_run: Boolean = Field(default=True, description="Only say what would go.")

    @model_validator(mode="after")
    def _chooses(self) -> "ObliterationCreate":
        if (self.asset_id is None) == (self.pattern is None):
            raise ValueError("give asset_id or pattern, one of the two")
        if self.versions and self.asset_id is None:
            raise ValueError("versions belong to one asset: give asset_id")
        return self


class ObliterationPlan(BaseModel):
    """What an obliteration takes. Content that something else still refers to stays in the store."""

    project_id: UUID
    versions: int
    objects: int = Field(description="Distinct contents among them.")
    objects_removed: int = Field(description="Those that nothing else refers to, in any project.")
    removed_bytes: int = Field(description="Their size, uncompressed.")
    obliteration_id: UUID | None = Field(description="None for a dry run.")


class Obliteration(BaseModel):
    id: UUID
    project_id: UUID
    reason: str
    status: ObliterationStatus
    requested_by: UUID
    requested_at: datetime
    due_at: datetime = Field(description="From then on it can be completed; until somebody tries, it can be cancelled.")
    finished_at: datetime | None
    versions: int
