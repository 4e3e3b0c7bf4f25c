"""Projects and their members on the wire."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from depot_api.wire import Integer, Text, WireModel

ProjectName = Annotated[Text, Field(min_length=1, max_length=200)]
Description = Annotated[Text, Field(max_length=10_000)]
QuotaBytes = Annotated[Integer, Field(ge=1, lt=2**63)]


class ProjectRole(StrEnum):
    """Ascending, as in the schema."""

    VIEWER = "viewer"
    REVIEWER = "reviewer"
    CONTRIBUTOR = "contributor"
    LEAD = "lead"
    MANAGER = "manager"
    OWNER = "owner"

    def covers(self, needed: "ProjectRole") -> bool:
        order = list(ProjectRole)
        return order.index(self) >= order.index(needed)


class ProjectStatus(StrEnum):
    PLANNING = "planning"
    ACTIVE = "active"
    ON_HOLD = "on_hold"
    ARCHIVED = "archived"


class ProjectCreate(WireModel):
    name: ProjectName
    description: Description = ""


class ProjectUpdate(WireModel):
    """What is left out stays as it is. Archiving has a route of its own."""

    name: ProjectName | None = None
    description: Description | None = None
    status: Literal[ProjectStatus.PLANNING, ProjectStatus.ACTIVE, ProjectStatus.ON_HOLD] | None = None
    quota_bytes: QuotaBytes | None = Field(
        default=None, description="Of content before compression, each content once; null takes the quota away."
    )


class Project(BaseModel):
    id: UUID
    name: str
    description: str
    status: ProjectStatus
    quota_bytes: int | None
    default_branch_id: UUID
    created_at: datetime
    my_role: ProjectRole


class MemberSet(WireModel):
    username: Text = Field(min_length=1, max_length=100)
    role: ProjectRole


class Member(BaseModel):
    user_id: UUID
    username: str
    role: ProjectRole
    created_at: datetime


class ArchiveRequest(WireModel):
    reason: Text = Field(min_length=1, max_length=10_000)


class ProjectArchive(BaseModel):
    """What a project held when it was archived; never changes."""

    id: UUID
    project_id: UUID
    archived_by: UUID
    archived_at: datetime
    reason: str
    assets: int
    versions: int
    branches: int
    changelists: int = Field(description="Submitted ones.")
    objects: int = Field(description="Different contents.")
    used_bytes: int = Field(description="Of these contents, before compression.")
