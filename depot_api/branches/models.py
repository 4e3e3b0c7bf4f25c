"""Branches and manifests on the wire."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, Field

from depot_api.wire import Integer, Text, WireModel

MAX_CHANGELIST_NO = 2**63 - 1


class BranchCreate(WireModel):
    project_id: UUID
    name: Text = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,199}$")
    description: Text = Field(default="", max_length=10_000)
    parent_id: UUID | None = Field(default=None, description="Left out: the project's default branch.")
    parent_at: Integer | None = Field(
        default=None,
        ge=0,
        le=MAX_CHANGELIST_NO,
        description="Changelist of the parent to start from; its head if none.",
    )


class Branch(BaseModel):
    id: UUID
    project_id: UUID
    name: str
    description: str
    parent_id: UUID | None
    parent_at: int | None
    head_no: int = Field(description="Newest changelist that this branch shows, 0 when there is none.")
    created_at: datetime


class ManifestRow(BaseModel):
    path: str
    asset_id: UUID
    version: int
    sha256: str
    size_bytes: int
    changelist_no: int


class Manifest(BaseModel):
    """One keyset page of a branch as of a changelist. A page can hold fewer rows than asked for and not be the last."""

    branch_id: UUID
    at: int
    items: list[ManifestRow]
    next_cursor: str | None
