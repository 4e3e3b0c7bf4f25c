"""Assets and their versions on the wire."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, Field

from depot_api.wire import Integer, Sha256FromBytes, Sha256Hex, StorableJson, Text, WireModel

MAX_TAGS = 100


class AssetCreate(WireModel):
    project_id: UUID
    path: Text = Field(max_length=4096)
    asset_type: Text = Field(default="", max_length=100)
    tags: list[Annotated[Text, Field(min_length=1, max_length=100)]] = Field(default=[], max_length=MAX_TAGS)
    metadata: StorableJson = Field(default={})


class Asset(BaseModel):
    id: UUID
    project_id: UUID
    path: str
    asset_type: str
    tags: list[str]
    metadata: dict[str, Any]
    last_version: int = Field(description="0 when nothing was ever submitted at this path.")
    created_at: datetime


class VersionCreate(WireModel):
    branch_id: UUID | None = Field(default=None, description="Left out: the project's default branch.")
    sha256: Sha256Hex = Field(description="Content that was sent before.")
    base_version: Integer | None = Field(
        default=None, ge=1, le=2**31 - 1, description="The head on the branch; none where the path is not there."
    )
    description: Text = Field(default="", max_length=10_000)


class AssetVersion(BaseModel):
    asset_id: UUID
    number: int
    sha256: Sha256FromBytes
    size_bytes: int
    action: str
    branch_id: UUID
    changelist_id: UUID
    changelist_no: int
    author_id: UUID
    created_at: datetime
