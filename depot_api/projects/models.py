"""Projects and their members on the wire."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from pydantic import BaseModel, Field

from depot_api.wire import Text, WireModel


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
    name: Text = Field(min_length=1, max_length=200)
    description: Text = Field(default="", max_length=10_000)


class Project(BaseModel):
    id: UUID
    name: str
    description: str
    status: ProjectStatus
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
