"""What the depot answers, typed. Members that a newer depot adds are ignored."""

from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Any, TypedDict
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


class StudioRole(StrEnum):
    """Ascending: each may do what those before it may."""

    VIEWER = "viewer"
    EDITOR = "editor"
    ADMIN = "admin"


class User(Answer):
    id: UUID
    username: str
    display_name: str = ""
    studio_role: str
    is_active: bool = True


class UserChanges(TypedDict, total=False):
    """What is left out stays as it is."""

    display_name: str
    studio_role: StudioRole
    is_active: bool


class TokenScope(StrEnum):
    READ = "read"
    WRITE = "write"
    ADMIN = "admin"
    PIPELINE = "pipeline"


class ApiToken(Answer):
    id: UUID
    user_id: UUID
    name: str
    scope: TokenScope
    expires_at: AwareDatetime
    revoked_at: AwareDatetime | None = None
    created_at: AwareDatetime


class CreatedToken(ApiToken):
    """`token` is shown this once."""

    token: str


class Project(Answer):
    id: UUID
    name: str
    description: str | None = None
    status: str
    quota_bytes: int | None = None
    created_at: AwareDatetime
    default_branch_id: UUID | None = None
    my_role: str | None = None


class ProjectChanges(TypedDict, total=False):
    """What is left out stays as it is; a quota of None takes it away."""

    name: str
    description: str
    status: str
    quota_bytes: int | None


class ProjectArchive(Answer):
    """What a project held when it was archived."""

    id: UUID
    archived_by: UUID
    archived_at: AwareDatetime
    reason: str
    assets: int
    versions: int
    branches: int
    changelists: int
    objects: int
    used_bytes: int


class Storage(Answer):
    """`used_bytes` is before compression, each content once."""

    used_bytes: int
    objects: int
    reserved_bytes: int
    quota_bytes: int | None = None


class StorageSnapshot(Answer):
    day: date
    taken_at: AwareDatetime
    used_bytes: int
    objects: int
    quota_bytes: int | None = None


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
    revision: int


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
    validation: str = "pending"
    validation_report: dict[str, Any] | None = None


class Verdict(StrEnum):
    PENDING = "pending"
    APPROVED = "approved"
    CHANGES_REQUESTED = "changes_requested"


class Review(Answer):
    """One reviewer's verdict on a changelist."""

    id: UUID
    project_id: UUID
    changelist_id: UUID
    reviewer_id: UUID
    reviewer: str
    verdict: Verdict
    comment: str
    created_at: AwareDatetime
    decided_at: AwareDatetime | None = None


class Comment(Answer):
    """What somebody said about a changelist, or about the item of it at `path`."""

    id: UUID
    changelist_id: UUID
    author_id: UUID
    author: str
    path: str | None = None
    body: str
    created_at: AwareDatetime


class Workspace(Answer):
    """What a user has of a branch, as the depot knows it; complete when it has all that it gives as of `at_no`."""

    id: UUID
    project_id: UUID
    branch_id: UUID
    name: str
    include: list[str]
    exclude: list[str]
    at_no: int
    is_complete: bool
    created_at: AwareDatetime


class WorkspaceFile(Answer):
    """An entry of the have-list."""

    path: str
    asset_id: UUID
    version: int


class SyncAction(StrEnum):
    FETCH = "fetch"
    REPLACE = "replace"
    REMOVE = "remove"


class FileChange(Answer):
    """What a sync has to do with one path; the version and its content are None to remove it."""

    action: SyncAction
    path: str
    asset_id: UUID
    have_version: int | None
    version: int | None
    sha256: str | None
    size_bytes: int | None


class Shelf(Answer):
    """Work in progress that was stored in the depot."""

    id: UUID
    project_id: UUID
    branch_id: UUID
    owner: str
    changelist_id: UUID | None = None
    description: str
    items_count: int
    created_at: AwareDatetime


class ShelfItem(Answer):
    path: str
    action: str
    base_version: int | None = None
    sha256: str | None = None
    size_bytes: int | None = None
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


class Unshelved(Answer):
    """How many items a changelist has, now that a shelf's are among them."""

    items_count: int


class PathRule(Answer):
    """What one user, one role, or with neither every member below manager may do at the paths that match."""

    pattern: str
    access: str
    username: str | None = None
    role: ProjectRole | None = None


class Webhook(Answer):
    """Where a project's events are sent to; those of these kinds, or of every kind without any."""

    id: UUID
    url: str
    kinds: list[str]
    is_active: bool
    created_at: AwareDatetime


class CreatedWebhook(Webhook):
    secret: str


class DeliveryStatus(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"


class Delivery(Answer):
    """One event on its way to one webhook."""

    id: UUID
    event_id: int
    kind: str
    status: DeliveryStatus
    attempts: int
    last_status: int | None = None
    last_error: str | None = None
    created_at: AwareDatetime


class ObliterationPlan(Answer):
    """What an obliteration takes; `obliteration_id` is None where nothing was done."""

    versions: int
    objects: int
    objects_removed: int
    removed_bytes: int
    obliteration_id: UUID | None = None


class Obliteration(Answer):
    id: UUID
    reason: str
    status: str
    requested_at: AwareDatetime
    due_at: AwareDatetime
    finished_at: AwareDatetime | None = None
    versions: int


class MergeStatus(StrEnum):
    PENDING = "pending"
    CONFLICTED = "conflicted"
    MERGED = "merged"
    CANCELLED = "cancelled"


class BranchMerge(Answer):
    """A merge of one branch into another; `landed_no` is the changelist of the target that it became."""

    id: UUID
    project_id: UUID
    source_branch_id: UUID
    source_at: int
    target_branch_id: UUID
    target_at: int | None
    status: MergeStatus
    description: str
    changelist_id: UUID
    shelf_id: UUID | None
    paths_count: int
    size_bytes: int
    conflicts_count: int
    unresolved_count: int
    landed_no: int | None
    creator: str
    created_at: AwareDatetime
    completed_at: AwareDatetime | None


class PlannedPath(Answer):
    path: str
    action: str
    moved_from: str | None
    sha256: str | None


class PlannedConflict(Answer):
    path: str
    kind: str
    source_path: str | None
    target_path: str | None


class MergePlan(Answer):
    """What a merge would do; `paths` and `conflicts` name the first of them."""

    source_at: int
    target_at: int
    paths_count: int
    size_bytes: int
    conflicts_count: int
    same_count: int
    paths: list[PlannedPath]
    conflicts: list[PlannedConflict]


class ConflictSide(Answer):
    path: str
    version: int
    sha256: str


class Resolution(StrEnum):
    SOURCE = "source"
    TARGET = "target"
    SUPPLIED = "supplied"
    MERGED = "merged"


class MergeConflict(Answer):
    """A path that waits for a choice, or has one; a side that deleted the path is None."""

    id: UUID
    merge_id: UUID
    path: str
    kind: str
    mergeable: bool
    base: ConflictSide | None
    source: ConflictSide | None
    target: ConflictSide | None
    resolution: Resolution | None
    resolved_sha256: str | None
    reason: str


class ConflictsResolved(Answer):
    resolved_count: int
    unresolved_count: int


class JobType(StrEnum):
    AUTO_INTEGRATE = "auto_integrate"
    CONFLICT_STAGING = "conflict_staging"
    SUBMIT_GATE = "submit_gate"


class JobStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    STAGED = "staged"
    COMPLETED = "completed"
    FAILED = "failed"


class MergeJob(Answer):
    """A part of a merge, as its executor claimed it: `fencing_number` goes with every report."""

    id: UUID
    project_id: UUID
    merge_id: UUID
    job_type: JobType
    status: JobStatus
    attempt: int
    fencing_number: int
    executor: str
    leased_until: AwareDatetime | None
    available_at: AwareDatetime
    error: str


class ClaimableJob(Answer):
    id: UUID
    project_id: UUID
    merge_id: UUID
    job_type: JobType
    status: JobStatus
    attempt: int
    fencing_number: int
    available_at: AwareDatetime
    target_branch_id: UUID


class ClaimedJob(Answer):
    job: MergeJob | None


class JobStep(Answer):
    """While the job is running: merge these texts, send those that came out whole, and take the next step."""

    job: MergeJob
    texts: list[MergeConflict]


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
    lock_fencing_number: int | None = None


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


@dataclass(frozen=True, slots=True)
class WorkspaceSync:
    """What leads from a have-list to a point of the branch."""

    at: int
    is_sparse: bool
    changes: list[FileChange]
