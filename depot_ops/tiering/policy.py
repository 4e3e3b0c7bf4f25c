"""The tiering policy: ordered rules that say by what refers to some content how cold it may lie."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from depot_api.patterns import Patterns, matches
from depot_ops.tiering.classes import SMALLEST_MOVED_BYTES, StorageClass

Name = Annotated[str, Field(min_length=1, max_length=200)]


class BranchState(StrEnum):
    """What a branch is; it can be released and archived at once."""

    ACTIVE = "active"
    """Neither of the others."""
    RELEASED = "released"
    """A label names a state of it."""
    ARCHIVED = "archived"
    """Its project is archived."""


@dataclass(frozen=True, slots=True)
class Reference:
    """One version, or one shelved file, that refers to some content."""

    project: str
    branch: str
    branch_states: frozenset[BranchState]
    asset_type: str
    path: str
    referenced_at: datetime
    superseded: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the policy says of some content."""

    storage_class: StorageClass
    keep_on_disk: bool


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Match(_Part):
    """What a reference has to be for a rule to be its rule: all that is given, and of each list any."""

    project: list[Name] = []
    """Names, with `*`; case does not count."""
    branch: list[Name] = []
    """Names, with `*`; case does not count."""
    branch_state: list[BranchState] = []
    type: list[str] = []
    """The asset's type, as it was given."""
    path: Patterns = []
    """As in workspaces: `*` within a segment, `**` for whole directories, `*.psd` for such a file anywhere."""
    superseded: bool | None = None
    """Whether a newer version has taken the place of this one, wherever it could be seen."""
    older_than_days: int | None = Field(None, ge=0, le=36_500)
    """Age of the reference: since the submit, or the shelving."""
    min_bytes: int | None = Field(None, ge=0)
    """Size of the object as it is stored."""
    max_bytes: int | None = Field(None, ge=0)

    def holds(self, reference: Reference, size_bytes: int, now: datetime) -> bool:
        return (
            (self.min_bytes is None or size_bytes >= self.min_bytes)
            and (self.max_bytes is None or size_bytes <= self.max_bytes)
            and (self.superseded is None or reference.superseded is self.superseded)
            and (self.older_than_days is None or now - reference.referenced_at >= timedelta(days=self.older_than_days))
            and (not self.branch_state or not reference.branch_states.isdisjoint(self.branch_state))
            and (not self.type or reference.asset_type in self.type)
            and (not self.project or _named(reference.project, self.project))
            and (not self.branch or _named(reference.branch, self.branch))
            and (not self.path or any(matches(pattern, reference.path) for pattern in self.path))
        )


def _named(name: str, patterns: list[str]) -> bool:
    return any(fnmatchcase(name.lower(), pattern.lower()) for pattern in patterns)


class Rule(_Part):
    """References that `when` holds for call for `storage_class`."""

    name: Name
    when: Match = Match()
    storage_class: StorageClass
    keep_on_disk: bool = True
    """When false, `depot-ops tier evict` may take the content from the store's own disk."""


class ArchiveTiers(_Part):
    """When INTELLIGENT_TIERING archives what nobody reads. Reading it again takes hours then."""

    archive_access_days: int | None = Field(None, ge=90, le=730)
    deep_archive_access_days: int | None = Field(None, ge=180, le=730)

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.archive_access_days is None and self.deep_archive_access_days is None:
            raise ValueError("give archive_access_days, deep_archive_access_days or both, or leave it all out")
        return self


class Policy(_Part):
    """The document. A reference that no rule matches calls for `default`."""

    version: Literal[1]
    default: StorageClass = StorageClass.STANDARD
    rules: list[Rule] = Field(max_length=200)
    intelligent_tiering: ArchiveTiers | None = None

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        if twice := [name for name, count in Counter(rule.name for rule in self.rules).items() if count > 1]:
            raise ValueError(f"several rules have the name {twice[0]!r}; what is told of a rule names it")
        return self

    def judge(self, references: Iterable[Reference], size_bytes: int, now: datetime) -> Verdict | None:
        """The warmest of what its references call for. None: nothing refers to it, or it is too small to be moved."""
        if size_bytes < SMALLEST_MOVED_BYTES:
            return None
        found: Verdict | None = None
        for reference in references:
            verdict = self._of_reference(reference, size_bytes, now)
            found = verdict if found is None else _warmer(found, verdict)
        return found

    def _of_reference(self, reference: Reference, size_bytes: int, now: datetime) -> Verdict:
        for rule in self.rules:
            if rule.when.holds(reference, size_bytes, now):
                return Verdict(rule.storage_class, rule.keep_on_disk)
        return Verdict(self.default, keep_on_disk=True)


def _warmer(one: Verdict, other: Verdict) -> Verdict:
    storage_class = min(one.storage_class, other.storage_class, key=lambda of: of.coldness)
    return Verdict(storage_class, one.keep_on_disk or other.keep_on_disk)
