"""Locks and typemap rules on the wire."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, BaseModel, Field

from depot_api.patterns import MAX_PATTERNS, MAX_PATTERNS_BYTES, Pattern
from depot_api.wire import Integer, Text, WireModel

DEFAULT_LEASE_SECONDS = 8 * 3600  # a working day
MAX_LEASE_SECONDS = 7 * 24 * 3600  # a lock that is forgotten over a holiday ends by itself
MAX_LOCKS_PER_CALL = 1000

AssetPath = Annotated[Text, Field(max_length=4096)]
BaseVersion = Annotated[Integer, Field(ge=1, le=2**31 - 1)]
LeaseSeconds = Annotated[
    Integer, Field(ge=1, le=MAX_LEASE_SECONDS, description="For how long, from now. Renew it before it ends.")
]


class LockScope(StrEnum):
    """Where the asker's base must be the newest version."""

    BRANCH = "branch"
    PROJECT = "project"


class LockCreate(WireModel):
    project_id: UUID
    branch_id: UUID = Field(description="The branch that the change will be submitted to.")
    path: AssetPath
    base_version: BaseVersion | None = Field(description="The version you have; null where the path is not there yet.")
    lease_seconds: LeaseSeconds = DEFAULT_LEASE_SECONDS


class LockItem(WireModel):
    path: AssetPath
    base_version: BaseVersion | None = Field(description="The version you have; null where the path is not there yet.")


class LocksCreate(WireModel):
    project_id: UUID
    branch_id: UUID = Field(description="The branch that the changes will be submitted to.")
    items: list[LockItem] = Field(min_length=1, max_length=MAX_LOCKS_PER_CALL)
    lease_seconds: LeaseSeconds = DEFAULT_LEASE_SECONDS


class LockRenew(WireModel):
    lease_seconds: LeaseSeconds = DEFAULT_LEASE_SECONDS


class LockBreak(WireModel):
    reason: Text = Field(max_length=10_000, pattern=r"\S", description="Kept for good, and shown to the holder.")


class Lock(BaseModel):
    id: UUID = Field(description="Of one holder's lease: whoever takes it over gets another.")
    project_id: UUID
    path: str
    holder_id: UUID
    holder: str
    base_version: int | None
    fencing_number: int = Field(description="Grows with every lease. Send it with the changelist's item.")
    acquired_at: datetime
    expires_at: datetime

    @property
    def etag(self) -> str:
        return f"{self.fencing_number}-{self.expires_at.timestamp():.6f}"


class Locks(BaseModel):
    items: list[Lock]


class HeldLock(BaseModel):
    """A lock that is in the way."""

    path: str
    holder_id: UUID
    holder: str
    acquired_at: datetime
    expires_at: datetime


class NewestVersion(BaseModel):
    """What the asker does not have of a path. Without `version` it is deleted, or was never there."""

    path: str
    base_version: int | None
    branch: str | None
    branch_id: UUID | None
    version: int | None
    changelist_no: int | None
    author: str | None


class LostLock(BaseModel):
    """A lock that an item relied on, and who holds the path now."""

    path: str
    lock_fencing_number: int
    holder: str | None


class LockRequiredItem(BaseModel):
    path: str
    pattern: str


class TypemapRule(WireModel):
    pattern: Pattern = Field(description="`*` within a segment, `**` across them; without a slash, a file name.")
    exclusive: bool = Field(default=False, description="Changed only by who holds its lock; adding takes none.")
    mergeable: bool = Field(default=False, description="Two versions can be merged by content.")
    asset_type: Text = Field(default="", max_length=200)
    scope: LockScope = Field(
        default=LockScope.PROJECT,
        description="`project`: a lock needs the newest version of all branches. `branch`: of the asker's only.",
    )


def _compilable(rules: list[TypemapRule]) -> list[TypemapRule]:
    size_bytes = sum(len(rule.pattern.encode()) for rule in rules)
    if size_bytes > MAX_PATTERNS_BYTES:
        raise ValueError(f"the patterns have {size_bytes} bytes together, and at most {MAX_PATTERNS_BYTES} are taken")
    return rules


class Typemap(WireModel):
    """Of the rules that match a path, the last one holds."""

    rules: Annotated[list[TypemapRule], Field(max_length=MAX_PATTERNS), AfterValidator(_compilable)]
