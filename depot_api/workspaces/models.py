"""Workspaces, their have-lists and their activity on the wire."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from pydantic import BaseModel, Field, model_validator

from depot_api.branches.models import MAX_CHANGELIST_NO
from depot_api.patterns import Patterns
from depot_api.wire import Boolean, Integer, Text, WireModel

MAX_FILES_PER_CALL = 10_000
MAX_VERSION = 2**31 - 1


class WorkspaceCreate(WireModel):
    project_id: UUID
    branch_id: UUID
    name: Text = Field(min_length=1, max_length=200)
    include: Patterns = Field(default=[], description="Only paths that match one of these; all when there are none.")
    exclude: Patterns = Field(default=[], description="But none that match one of these.")


class WorkspaceUpdate(WireModel):
    """What is left out stays as it is."""

    branch_id: UUID | None = Field(default=None, description="Switch to this branch; the next sync transfers it.")
    include: Patterns | None = None
    exclude: Patterns | None = None


class Workspace(BaseModel):
    id: UUID
    project_id: UUID
    branch_id: UUID
    owner_id: UUID
    name: str
    include: list[str]
    exclude: list[str]
    at_no: int = Field(description="The newest changelist that its files were synced to.")
    is_complete: bool = Field(description="Whether it has exactly what its branch and patterns give at at_no.")
    created_at: datetime


class HaveFile(WireModel):
    path: Text = Field(max_length=4096)
    version: Integer | None = Field(ge=1, le=MAX_VERSION, description="Null: this path is not there any more.")


class HadFile(BaseModel):
    path: str
    asset_id: UUID
    version: int


class SyncRequest(WireModel):
    at: Integer | None = Field(
        default=None, ge=0, le=MAX_CHANGELIST_NO, description="As of this changelist; the head when left out."
    )
    label: Text | None = Field(default=None, max_length=200, description="As of this label instead.")
    have: list[HaveFile] = Field(
        default=[],
        max_length=MAX_FILES_PER_CALL,
        description="Corrections: what the workspace really has of these paths. The have-list is changed to it.",
    )

    @model_validator(mode="after")
    def _names_one_point(self) -> "SyncRequest":
        if self.at is not None and self.label is not None:
            raise ValueError("at and label are two ways to name one point: send one of them")
        return self


class SyncPlan(BaseModel):
    """The first line of the answer of a sync."""

    workspace_id: UUID
    branch_id: UUID
    at: int
    is_sparse: bool = Field(description="Only paths that changed since the last sync were looked at.")


class Synced(WireModel):
    at: Integer = Field(ge=0, le=MAX_CHANGELIST_NO, description="The point that the sync was for.")
    files: list[HaveFile] = Field(max_length=MAX_FILES_PER_CALL)
    complete: Boolean = Field(
        default=False, description="These were the last ones: check that nothing is left to fetch, replace or remove."
    )


class ActivityKind(StrEnum):
    CREATED = "created"
    SWITCHED = "switched"
    MAPPED = "mapped"
    SYNCED = "synced"
    DELETED = "deleted"


class Activity(BaseModel):
    id: int
    workspace_id: UUID
    workspace_name: str
    user_id: UUID
    username: str
    kind: ActivityKind
    branch_id: UUID
    at_no: int
    updated_files: int
    removed_files: int
    created_at: datetime
