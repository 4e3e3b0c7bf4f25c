"""Assets and their versions on the wire."""

import json
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, BaseModel, Field, TypeAdapter, ValidationError

from depot_api.wire import Integer, Sha256FromBytes, Sha256Hex, StorableJson, Text, WireModel

MAX_TAGS = 100
MAX_VERSION = 2**31 - 1

_METADATA = TypeAdapter(StorableJson)


def _metadata_text(text: str) -> str:
    """Written anew from what was understood: PostgreSQL refuses some numbers that JSON can spell."""
    try:
        return json.dumps(_METADATA.validate_json(text))
    except ValidationError as error:
        raise ValueError(f"must be a JSON object: {error.errors()[0]['msg']}") from None


MetadataText = Annotated[str, AfterValidator(_metadata_text)]
AssetType = Annotated[Text, Field(max_length=100)]
Tag = Annotated[Text, Field(min_length=1, max_length=100)]
Tags = Annotated[list[Tag], Field(max_length=MAX_TAGS)]
BaseVersion = Annotated[Integer, Field(ge=1, le=MAX_VERSION)]
Description = Annotated[Text, Field(max_length=10_000)]


class AssetCreate(WireModel):
    project_id: UUID
    path: Text = Field(max_length=4096)
    asset_type: AssetType = ""
    tags: Tags = Field(default=[])
    metadata: StorableJson = Field(default={})


class AssetUpdate(WireModel):
    """What is left out stays as it is; what is given replaces all of what was there, but for single tags."""

    asset_type: AssetType | None = None
    tags: Tags | None = None
    add_tags: Tags = Field(default=[], description="Added to those that are there, whoever adds others meanwhile.")
    remove_tags: Tags = Field(default=[], description="Taken away, after others were added.")
    metadata: StorableJson | None = None


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
    base_version: BaseVersion | None = Field(
        default=None, description="The head on the branch; none where the path is not there."
    )
    description: Description = ""


class VersionFields(WireModel):
    """Of the form that sends a file as a new version. A form knows only text."""

    branch_id: UUID | None = None
    base_version: Annotated[int | None, Field(ge=1, le=MAX_VERSION)] = None
    description: Description = ""


class AssetDelete(WireModel):
    branch_id: UUID | None = Field(default=None, description="Left out: the project's default branch.")
    base_version: BaseVersion = Field(description="The head on the branch.")
    description: Description = ""


class AssetMove(AssetDelete):
    to_path: Text = Field(max_length=4096)


class AssetRestore(WireModel):
    branch_id: UUID | None = Field(default=None, description="Left out: the project's default branch.")
    version: BaseVersion | None = Field(
        default=None, description="Whose content comes back; the last that the branch had when left out."
    )
    description: Description = ""


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
    obliterated: bool = Field(default=False, description="The content is gone and answers 410.")


class PastVersion(AssetVersion):
    """A version, with the path that it was at."""

    path: str
    moved_from: str | None


class FoundAsset(Asset):
    """An asset, with its head on the branch that was searched; of a deleted one only the changelist is left."""

    version: int | None
    sha256: Sha256FromBytes | None
    size_bytes: int | None
    changelist_no: int
