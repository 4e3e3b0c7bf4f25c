"""Shelves and their items on the wire."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, Field

from depot_api.changelists.models import MAX_ITEMS_PER_CALL, Item, ItemAction
from depot_api.wire import Boolean, Text, WireModel


class ShelfCreate(WireModel):
    project_id: UUID
    branch_id: UUID = Field(description="The branch that the work is for.")
    description: Text = Field(default="", max_length=10_000)
    changelist_id: UUID | None = Field(default=None, description="The changelist that it belongs to.")
    items: list[Item] = Field(min_length=1, max_length=MAX_ITEMS_PER_CALL)


class ChangelistShelve(WireModel):
    description: Text | None = Field(
        default=None, max_length=10_000, description="Left out: the changelist's description."
    )


class ShelfUpdate(WireModel):
    """What is left out stays as it is."""

    description: Text | None = Field(default=None, max_length=10_000)
    changelist_id: UUID | None = Field(default=None, description="Null takes the link away.")


class ShelfItems(WireModel):
    items: list[Item] = Field(min_length=1, max_length=MAX_ITEMS_PER_CALL)


class Shelf(BaseModel):
    id: UUID
    project_id: UUID
    branch_id: UUID
    owner_id: UUID
    owner: str
    changelist_id: UUID | None
    description: str
    items_count: int
    created_at: datetime


class ShelfItem(BaseModel):
    path: str
    action: ItemAction
    base_version: int | None
    sha256: str | None
    size_bytes: int | None
    moved_from: str | None
    source_branch_id: UUID | None
    source_version: int | None
    lock_fencing_number: int | None


class Unshelve(WireModel):
    changelist_id: UUID = Field(description="An open changelist of your own.")
    replace: Boolean = Field(default=False, description="Replace items that the changelist has for the same paths.")


class Unshelved(BaseModel):
    changelist_id: UUID
    items_count: int = Field(description="How many items the changelist then has.")
