"""Changelists and their items on the wire."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, Field, model_validator

from depot_api.wire import Integer, Sha256Hex, StorableJson, Text, WireModel

MAX_ITEMS_PER_CALL = 10_000


class ChangelistStatus(StrEnum):
    OPEN = "open"
    PENDING_REVIEW = "pending_review"
    SUBMITTED = "submitted"
    ABANDONED = "abandoned"


class ItemAction(StrEnum):
    ADD = "add"
    EDIT = "edit"
    DELETE = "delete"
    MOVE = "move"
    INTEGRATE = "integrate"


class ValidationStatus(StrEnum):
    PENDING = "pending"
    PASSED = "passed"
    FAILED = "failed"


class ChangelistCreate(WireModel):
    project_id: UUID
    branch_id: UUID | None = Field(default=None, description="Where it will be submitted to; needed by then.")
    description: Text = Field(default="", max_length=10_000)


class ChangelistUpdate(WireModel):
    """What is left out stays. Of a submitted changelist an admin may correct the description, and nothing else."""

    branch_id: UUID | None = None
    description: Text | None = Field(default=None, max_length=10_000)


class RevertRequest(WireModel):
    description: Text | None = Field(default=None, max_length=10_000, description="Left out: names what is reverted.")


class Changelist(BaseModel):
    id: UUID
    project_id: UUID
    branch_id: UUID | None
    author_id: UUID
    status: ChangelistStatus
    number: int | None = Field(description="Given at submit; chronological in the project.")
    description: str
    items_count: int
    revision: int = Field(description="The ETag: changes with every change of the changelist.")
    created_at: datetime
    submitted_at: datetime | None


class Item(WireModel):
    action: ItemAction
    path: Text = Field(max_length=4096)
    base_version: Integer | None = Field(
        default=None, ge=1, le=2**31 - 1, description="The version you started from; none for an add."
    )
    sha256: Sha256Hex | None = Field(default=None, description="The new content; none for a delete.")
    moved_from: Text | None = Field(default=None, max_length=4096, description="For a move: the path it leaves.")
    source_branch_id: UUID | None = Field(default=None, description="For an integrate: the branch it comes from.")
    source_version: Integer | None = Field(default=None, ge=1, le=2**31 - 1, description="For an integrate.")
    lock_fencing_number: Integer | None = Field(
        default=None, ge=1, le=2**63 - 1, description="Of the lock you rely on: refused at submit when it is lost."
    )

    @model_validator(mode="after")
    def _fits_its_action(self) -> "Item":
        if (self.action is ItemAction.DELETE) != (self.sha256 is None):
            raise ValueError("every action but delete needs sha256, and delete takes none")
        if self.action is not ItemAction.INTEGRATE and (self.action is ItemAction.ADD) != (self.base_version is None):
            raise ValueError("every action but add needs base_version, and add takes none")
        if (self.action is ItemAction.MOVE) != (self.moved_from is not None):
            raise ValueError("move, and only move, needs moved_from")
        sources = [self.source_branch_id, self.source_version]
        if sources.count(None) != (0 if self.action is ItemAction.INTEGRATE else len(sources)):
            raise ValueError("integrate, and only integrate, needs source_branch_id and source_version")
        return self


@dataclass(frozen=True, slots=True)
class ItemRow:
    """An item as it is stored, its paths checked."""

    path_key: str
    path: str
    action: str
    base_version: int | None
    sha256: bytes | None
    moved_from: str | None
    moved_from_key: str | None
    source_branch_id: UUID | None = None
    source_version: int | None = None
    lock_fencing_number: int | None = None


class ItemsAdd(WireModel):
    items: list[Item] = Field(min_length=1, max_length=MAX_ITEMS_PER_CALL)


class ItemsRevert(WireModel):
    paths: list[Annotated[Text, Field(max_length=4096)]] = Field(min_length=1, max_length=MAX_ITEMS_PER_CALL)


class ItemsCount(BaseModel):
    items_count: int


class ChangelistItem(BaseModel):
    path: str
    action: ItemAction
    base_version: int | None
    sha256: str | None
    moved_from: str | None
    source_branch_id: UUID | None
    source_version: int | None
    lock_fencing_number: int | None
    validation: ValidationStatus
    validation_report: dict[str, Any] | None


class ItemValidation(WireModel):
    path: Text = Field(max_length=4096)
    sha256: Sha256Hex | None = Field(description="The content that was looked at; none for a delete.")
    status: ValidationStatus
    report: StorableJson | None = None


class Validations(WireModel):
    items: list[ItemValidation] = Field(min_length=1, max_length=MAX_ITEMS_PER_CALL)


class ValidationCounts(BaseModel):
    """Of all items of the changelist."""

    pending: int
    passed: int
    failed: int


class Submitted(BaseModel):
    id: UUID
    number: int
    status: ChangelistStatus = ChangelistStatus.SUBMITTED
    submitted_at: datetime
    items_count: int


class StaleItem(BaseModel):
    path: str
    base_version: int | None
    head_version: int | None
    head_changelist_no: int | None
