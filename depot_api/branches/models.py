"""Branches and manifests on the wire."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field, field_validator

from depot_api.projects.models import ProjectRole
from depot_api.wire import Boolean, Integer, Text, WireModel

MAX_CHANGELIST_NO = 2**63 - 1
MAX_APPROVALS = 10  # as in the schema
# Never digits alone: `branch@12` is always a changelist.
LABEL_PATTERN = r"^([A-Za-z]|[0-9]+[A-Za-z._-])[A-Za-z0-9._-]*$"

LabelName = Annotated[Text, Field(pattern=LABEL_PATTERN, max_length=200)]
ChangelistNo = Annotated[Integer, Field(ge=0, le=MAX_CHANGELIST_NO)]


class BranchCreate(WireModel):
    project_id: UUID
    name: Text = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,199}$")
    description: Text = Field(default="", max_length=10_000)
    parent_id: UUID | None = Field(default=None, description="Left out: the project's default branch.")
    parent_at: ChangelistNo | None = Field(
        default=None, description="Changelist of the parent to start from; its head if none."
    )
    parent_label: LabelName | None = Field(default=None, description="Instead of parent_at: where the label is.")


class BranchUpdate(WireModel):
    """What is left out stays as it is."""

    description: Text | None = Field(default=None, max_length=10_000)
    submit_role: ProjectRole | None = Field(default=None, description="Who may submit: contributor or above.")
    require_review: Boolean | None = None
    require_validation: Boolean | None = None
    approve_role: ProjectRole | None = Field(default=None, description="Whose approvals count: reviewer or above.")
    required_approvals: Integer | None = Field(default=None, ge=1, le=MAX_APPROVALS)

    @field_validator("submit_role")
    @classmethod
    def _can_write(cls, role: ProjectRole | None) -> ProjectRole | None:
        if role is not None and not role.covers(ProjectRole.CONTRIBUTOR):
            raise ValueError(f"a {role} cannot submit: give contributor or above")
        return role

    @field_validator("approve_role")
    @classmethod
    def _can_review(cls, role: ProjectRole | None) -> ProjectRole | None:
        if role is not None and not role.covers(ProjectRole.REVIEWER):
            raise ValueError(f"a {role} cannot approve: give reviewer or above")
        return role


class Branch(BaseModel):
    id: UUID
    project_id: UUID
    name: str
    description: str
    parent_id: UUID | None
    parent_at: int | None
    head_no: int = Field(description="Newest changelist that this branch shows, 0 when there is none.")
    submit_role: ProjectRole
    require_review: bool
    require_validation: bool
    approve_role: ProjectRole
    required_approvals: int
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


class Change(StrEnum):
    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


class DiffSide(BaseModel):
    version: int
    sha256: str
    size_bytes: int


class DiffRow(BaseModel):
    path: str
    change: Change
    left: DiffSide | None = Field(description="null where the path is not on the left.")
    right: DiffSide | None


class Point(BaseModel):
    branch_id: UUID
    at: int


class Diff(BaseModel):
    """One keyset page of what changes from left to right. It can hold fewer rows than asked for and not be the last."""

    left: Point
    right: Point
    items: list[DiffRow]
    next_cursor: str | None


class LabelSet(WireModel):
    branch_id: UUID
    at: ChangelistNo | None = Field(default=None, description="Changelist; the branch's head when left out or null.")


class Label(BaseModel):
    project_id: UUID
    name: str
    branch_id: UUID
    at: int
    created_by: UUID
    created_at: datetime
