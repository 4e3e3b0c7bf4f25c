"""Merges, their conflicts and their jobs on the wire."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, Field, model_validator

from depot_api.branches.models import ChangelistNo
from depot_api.merges.decide import ConflictKind
from depot_api.patterns import Pattern
from depot_api.wire import Boolean, Integer, Sha256Hex, Text, WireModel

MAX_LEASE_SECONDS = 3600
MAX_FENCING_NUMBER = 2**63 - 1

Reason = Annotated[Text, Field(max_length=10_000)]
FencingNumber = Annotated[Integer, Field(ge=1, le=MAX_FENCING_NUMBER)]
LeaseSeconds = Annotated[Integer, Field(ge=1, le=MAX_LEASE_SECONDS)]


class MergeStatus(StrEnum):
    PENDING = "pending"
    CONFLICTED = "conflicted"
    MERGED = "merged"
    CANCELLED = "cancelled"


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


class Resolution(StrEnum):
    SOURCE = "source"
    TARGET = "target"
    SUPPLIED = "supplied"
    MERGED = "merged"


class MergeCreate(WireModel):
    project_id: UUID
    source_branch_id: UUID
    target_branch_id: UUID
    source_at: ChangelistNo | None = Field(default=None, description="Changelist of the source; its head if none.")
    description: Text = Field(default="", max_length=10_000)
    merge_text: Boolean = Field(default=True, description="Merge texts that the typemap says are mergeable.")
    submit: Boolean = Field(default=False, description="Queue the submit_gate at once: lands when nothing is open.")

    @model_validator(mode="after")
    def _has_two_ends(self) -> "MergeCreate":
        if self.source_branch_id == self.target_branch_id:
            raise ValueError("source and target are the same branch")
        return self


class BranchMerge(BaseModel):
    id: UUID
    project_id: UUID
    source_branch_id: UUID
    source_at: int
    target_branch_id: UUID
    target_at: int | None = Field(description="The target's changelist that the result was staged against.")
    status: MergeStatus
    description: str
    merge_text: bool
    changelist_id: UUID = Field(description="Where the result is staged, and what lands.")
    shelf_id: UUID | None = Field(description="Both sides of the conflicts, to look at.")
    paths_count: int
    size_bytes: int
    conflicts_count: int
    unresolved_count: int
    landed_no: int | None = Field(description="From this changelist on the target knows the source as of source_at.")
    created_by: UUID
    creator: str
    created_at: datetime
    completed_at: datetime | None
    cancelled_at: datetime | None


class PlannedPath(BaseModel):
    path: str
    action: str
    moved_from: str | None
    sha256: str | None


class PlannedConflict(BaseModel):
    path: str
    kind: ConflictKind
    source_path: str | None
    target_path: str | None


class MergePlan(BaseModel):
    """What a merge would do. Of paths and conflicts the first are named."""

    source_at: int
    target_at: int
    paths_count: int
    size_bytes: int
    conflicts_count: int
    same_count: int = Field(description="Both sides had made the same of these.")
    paths: list[PlannedPath]
    conflicts: list[PlannedConflict]


class ConflictSide(BaseModel):
    """A version, and where it lives."""

    path: str
    version: int
    sha256: str


class MergeConflict(BaseModel):
    id: UUID
    merge_id: UUID
    path: str
    kind: ConflictKind
    mergeable: bool
    base: ConflictSide | None
    source: ConflictSide | None = Field(description="None: the source deleted it.")
    target: ConflictSide | None = Field(description="None: the target deleted it.")
    resolution: Resolution | None
    resolved_sha256: str | None
    resolved_by: UUID | None
    resolved_at: datetime | None
    reason: str


class MadeResolution(BaseModel):
    resolution: Resolution
    sha256: str | None
    reason: str
    resolved_by: str
    resolved_at: datetime


class MergeConflictDetail(MergeConflict):
    history: list[MadeResolution] = Field(description="Every choice that was made, oldest first.")


class ConflictResolve(WireModel):
    resolution: Resolution
    sha256: Sha256Hex | None = Field(default=None, description="With supplied: content that you have sent.")
    reason: Reason = ""

    @model_validator(mode="after")
    def _fits(self) -> "ConflictResolve":
        if self.resolution is Resolution.MERGED:
            raise ValueError("merged is what the depot does itself; choose source, target or supplied")
        if (self.resolution is Resolution.SUPPLIED) != (self.sha256 is not None):
            raise ValueError("supplied, and only supplied, needs sha256")
        return self


class ConflictsResolve(WireModel):
    """One choice for all conflicts that the pattern names."""

    pattern: Pattern
    resolution: Resolution
    reason: Reason = ""
    even_resolved: Boolean = False

    @model_validator(mode="after")
    def _has_a_side(self) -> "ConflictsResolve":
        if self.resolution not in (Resolution.SOURCE, Resolution.TARGET):
            raise ValueError("many conflicts at once are resolved to source or to target")
        return self


class ConflictsResolved(BaseModel):
    resolved_count: int
    unresolved_count: int


class JobAdd(WireModel):
    job_type: JobType


class MergeJob(BaseModel):
    id: UUID
    project_id: UUID
    merge_id: UUID
    job_type: JobType
    status: JobStatus
    submit_gate_passed: bool
    attempt: int
    fencing_number: int
    executor: str
    leased_until: datetime | None
    available_at: datetime
    error: str
    result: dict[str, Any] | None
    created_at: datetime
    finished_at: datetime | None


class ClaimableJob(BaseModel):
    id: UUID
    project_id: UUID
    merge_id: UUID
    job_type: JobType
    status: JobStatus
    attempt: int
    fencing_number: int = Field(description="How often it was claimed, ever: names what waits, as attempt does not.")
    available_at: datetime
    target_branch_id: UUID


class JobClaim(WireModel):
    executor: Text = Field(min_length=1, max_length=200, description="Who works on it: host and process.")
    lease_seconds: LeaseSeconds = 60
    merge_id: UUID | None = Field(default=None, description="Only a job of this merge.")
    job_id: UUID | None = Field(default=None, description="Only this job.")


class ClaimedJob(BaseModel):
    job: MergeJob | None = Field(description="None: there is nothing to do now.")


class JobUpdate(WireModel):
    """Its executor's heartbeat or report, with the fencing number; or a lead's `queued`, for one that has failed."""

    status: JobStatus | None = None
    fencing_number: FencingNumber | None = None
    lease_seconds: LeaseSeconds = 60
    error: Text = Field(default="", max_length=10_000)

    @model_validator(mode="after")
    def _is_known(self) -> "JobUpdate":
        if self.fencing_number is None and self.status is not JobStatus.QUEUED:
            raise ValueError("an executor's report needs fencing_number; without it a failed job is only queued again")
        if self.fencing_number is not None and self.status not in (None, JobStatus.FAILED):
            raise ValueError("an executor reports failed, or nothing, which prolongs its lease")
        if self.status is JobStatus.FAILED and not self.error:
            raise ValueError("a failed job needs its error")
        return self


class JobStepRequest(WireModel):
    fencing_number: FencingNumber
    lease_seconds: LeaseSeconds = 60
    texts_tried: Boolean = Field(default=False, description="The texts that the step before named have been tried.")


class JobStep(BaseModel):
    """While it is running: merge these texts, send what came out whole, and take the next step."""

    job: MergeJob
    texts: list[MergeConflict]
