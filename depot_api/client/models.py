"""What the depot answers, typed. Members that a newer depot adds are ignored."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field


class Answer(BaseModel):
    """Base of the answers."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Token(Answer):
    """A signed access token; `expires_in` is in seconds."""

    access_token: str
    token_type: str
    expires_in: int


class User(Answer):
    id: UUID
    username: str
    studio_role: str


class Project(Answer):
    id: UUID
    name: str
    description: str | None = None
    status: str
    created_at: AwareDatetime
    default_branch_id: UUID | None = None
    my_role: str | None = None


class ProjectRole(StrEnum):
    """Ascending: each may do what those before it may."""

    VIEWER = "viewer"
    REVIEWER = "reviewer"
    CONTRIBUTOR = "contributor"
    LEAD = "lead"
    MANAGER = "manager"
    OWNER = "owner"


class Member(Answer):
    user_id: UUID
    username: str
    role: ProjectRole


class Branch(Answer):
    """`head_no` is the newest changelist visible on the branch, 0 when there is none."""

    id: UUID
    project_id: UUID
    name: str
    parent_id: UUID | None = None
    parent_at: int | None = None
    head_no: int
    submit_role: ProjectRole = ProjectRole.CONTRIBUTOR
    require_review: bool = False
    require_validation: bool = False
    created_at: AwareDatetime


class Label(Answer):
    """A name for a branch as of changelist `at`."""

    name: str
    branch_id: UUID
    at: int
    created_at: AwareDatetime


class DiffSide(Answer):
    version: int
    sha256: str
    size_bytes: int


class DiffRow(Answer):
    """`change` is added, removed or changed: what happens to the path from left to right."""

    path: str
    change: str
    left: DiffSide | None
    right: DiffSide | None


class ChangelistStatus(StrEnum):
    OPEN = "open"
    PENDING_REVIEW = "pending_review"
    SUBMITTED = "submitted"
    ABANDONED = "abandoned"


class Changelist(Answer):
    id: UUID
    project_id: UUID
    branch_id: UUID | None = None
    status: ChangelistStatus
    number: int | None = None
    description: str = ""
    author_id: UUID | None = None
    created_at: AwareDatetime
    submitted_at: AwareDatetime | None = None
    items_count: int = 0


class Submitted(Answer):
    """The answer to a submit."""

    id: UUID
    number: int
    status: ChangelistStatus
    submitted_at: AwareDatetime
    items_count: int


class StoredObject(Answer):
    """`stored_bytes` is the size as it lies in the depot, compressed."""

    sha256: str
    size_bytes: int
    stored_bytes: int


class Asset(Answer):
    """A path of a project; `last_version` is 0 when nothing was ever submitted there."""

    id: UUID
    project_id: UUID
    path: str
    asset_type: str
    tags: list[str]
    metadata: dict[str, Any]
    last_version: int
    created_at: AwareDatetime


class FoundAsset(Asset):
    """An asset with its head on the branch that was searched."""

    version: int | None
    sha256: str | None
    size_bytes: int | None
    changelist_no: int


class AssetVersion(Answer):
    asset_id: UUID
    number: int
    sha256: str | None
    size_bytes: int | None
    action: str
    branch_id: UUID
    changelist_no: int
    author_id: UUID
    created_at: AwareDatetime


class ChangelistItem(Answer):
    path: str
    action: str
    base_version: int | None = None
    sha256: str | None = None
    moved_from: str | None = None


class Lock(Answer):
    """The right to change a path, its holder's alone until `expires_at`."""

    id: UUID
    project_id: UUID
    path: str
    holder_id: UUID
    holder: str
    base_version: int | None
    fencing_number: int
    acquired_at: AwareDatetime
    expires_at: AwareDatetime


class TypemapRule(Answer):
    """What holds for the paths that match, unless a later rule matches too."""

    pattern: str
    exclusive: bool = False
    mergeable: bool = False
    asset_type: str = ""
    scope: str = "project"


class Health(Answer):
    """`checks` holds one entry for each part: `database`, `storage`, `migrations`."""

    status: str
    checks: dict[str, dict[str, Any]] = Field(default_factory=dict)


class Action(StrEnum):
    ADD = "add"
    EDIT = "edit"
    DELETE = "delete"
    MOVE = "move"


@dataclass(frozen=True, slots=True)
class Item:
    """One change of a changelist; `base_version` is the version that the author started from."""

    action: Action
    path: str
    base_version: int | None
    sha256: str | None = None
    moved_from: str | None = None


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a path as a branch or a workspace has it."""

    version: int
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """Every path that lives on a branch as of changelist `at`."""

    at: int
    files: dict[str, Version]
