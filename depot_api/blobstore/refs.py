"""`refs/<project_id>/`: what the catalogue knows, beside the objects, so that a lost database can be made again.

`<timestamp>_<asset_id>.json` is one path in one submitted changelist, `merge_<id>.json` one merge that has landed;
`project.json`, `branch_<id>.json`, `asset_<id>.json` and `obliteration_<id>.json` are how these stand now. Writing the
same document again changes nothing.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from depot_api.blobstore.durability import full_disk_told, sync_all, sync_path

VERSION_NAME = re.compile(r"\d{8}T\d{6}\.\d{9}Z_[0-9a-f-]{36}\.json")


class _Ref(BaseModel):
    """Format 2 says what 1 did not: who may do what, merges and integrations, labels, obliterations.

    Those fields are None in a document of format 1. Fields that a later format adds are not an error for this one.
    """

    model_config = ConfigDict(frozen=True)

    format: Literal[1, 2] = 2


class UserRef(BaseModel):
    id: UUID
    username: str
    display_name: str = ""
    studio_role: str = "viewer"


class MemberRef(BaseModel):
    user: UserRef
    role: str
    created_at: datetime


class PathPermissionRef(BaseModel):
    """A rule about one user, one role, or with neither about every member below manager."""

    pattern: str
    user: UserRef | None
    role: str | None
    access: str


class TypemapRuleRef(BaseModel):
    pattern: str
    exclusive: bool
    mergeable: bool
    asset_type: str
    scope: str


class LabelRef(BaseModel):
    name: str
    branch_id: UUID
    at_no: int
    created_by: UserRef
    created_at: datetime


class ProjectRef(_Ref):
    id: UUID
    name: str
    description: str
    status: str
    quota_bytes: int | None
    default_branch_id: UUID
    created_by: UserRef
    created_at: datetime
    members: list[MemberRef]
    path_permissions: list[PathPermissionRef] | None = None
    typemap: list[TypemapRuleRef] | None = None
    labels: list[LabelRef] | None = None

    @property
    def place(self) -> str:
        return f"{self.id}/project.json"


class BranchRef(_Ref):
    project_id: UUID
    id: UUID
    name: str
    description: str
    parent_id: UUID | None
    parent_at: int | None
    submit_role: str
    require_review: bool
    require_validation: bool
    approve_role: str | None = None
    required_approvals: int | None = None
    created_by: UserRef
    created_at: datetime

    @property
    def place(self) -> str:
        return f"{self.project_id}/branch_{self.id}.json"


class AssetRef(_Ref):
    project_id: UUID
    id: UUID
    path: str
    asset_type: str
    tags: list[str]
    metadata: dict[str, Any]
    created_by: UserRef
    created_at: datetime

    @property
    def place(self) -> str:
        return f"{self.project_id}/asset_{self.id}.json"


class VersionRef(_Ref):
    """One path in one submitted changelist. Without `version` the path is gone: deleted, or moved to `moved_to`."""

    project_id: UUID
    asset_id: UUID
    path: str
    version: int | None
    sha256: str | None
    size_bytes: int | None
    action: str
    base_version: int | None
    moved_from: str | None
    moved_to: str | None
    source_branch_id: UUID | None = None
    source_version: int | None = None
    branch_id: UUID
    branch: str
    changelist_id: UUID
    changelist_no: int
    changelist_refs: int  # how many of these the changelist has, so that one that is half there is noticed
    description: str
    submitted_at: datetime
    author: UserRef

    @property
    def place(self) -> str:
        moment = self.submitted_at.astimezone(UTC)
        # Submits to two branches can begin in one microsecond; their changelists' numbers are neighbours then.
        timestamp = f"{moment:%Y%m%dT%H%M%S.%f}{self.changelist_no % 1000:03}Z"
        return f"{self.project_id}/{timestamp}_{self.asset_id}.json"


class MergeRef(_Ref):
    """A merge that has landed: from `landed_no` on the target knows the source as of `source_at`."""

    project_id: UUID
    id: UUID
    source_branch_id: UUID
    source_at: int
    target_branch_id: UUID
    target_at: int | None
    landed_no: int
    changelist_id: UUID
    changelist_no: int | None  # None where nothing was to do
    description: str
    merge_text: bool
    paths_count: int
    size_bytes: int
    created_by: UserRef
    created_at: datetime
    completed_at: datetime

    @property
    def place(self) -> str:
        return f"{self.project_id}/merge_{self.id}.json"


class ObliteratedRef(BaseModel):
    asset_id: UUID
    version: int


class ObliterationRef(_Ref):
    project_id: UUID
    id: UUID
    reason: str
    status: str
    requested_by: UserRef
    requested_at: datetime
    due_at: datetime
    finished_at: datetime | None
    versions: list[ObliteratedRef]

    @property
    def place(self) -> str:
        return f"{self.project_id}/obliteration_{self.id}.json"


Ref = ProjectRef | BranchRef | AssetRef | VersionRef | MergeRef | ObliterationRef


@dataclass(frozen=True, slots=True)
class ProjectRefs:
    """One project's directory, read."""

    directory: Path

    def project(self) -> ProjectRef:
        """Raises FileNotFoundError or pydantic's ValidationError."""
        return ProjectRef.model_validate_json((self.directory / "project.json").read_bytes())

    def branches(self) -> list[BranchRef]:
        return [BranchRef.model_validate_json(path.read_bytes()) for path in self._named("branch_*.json")]

    def assets(self) -> Iterator[AssetRef]:
        return (AssetRef.model_validate_json(path.read_bytes()) for path in self._named("asset_*.json"))

    def merges(self) -> list[MergeRef]:
        """In the order in which they landed."""
        found = [MergeRef.model_validate_json(path.read_bytes()) for path in self._named("merge_*.json")]
        return sorted(found, key=lambda merge: (merge.landed_no, merge.completed_at))

    def obliterations(self) -> list[ObliterationRef]:
        return [ObliterationRef.model_validate_json(path.read_bytes()) for path in self._named("obliteration_*.json")]

    def versions(self) -> Iterator[VersionRef]:
        paths = (path for path in self.directory.iterdir() if VERSION_NAME.fullmatch(path.name))
        return (VersionRef.model_validate_json(path.read_bytes()) for path in paths)

    def _named(self, pattern: str) -> list[Path]:
        return sorted(self.directory.glob(pattern))


def read_refs(directory: Path) -> list[ProjectRefs]:
    """Every project below `refs/`; a directory that a crash left empty is none."""
    return [ProjectRefs(project) for project in sorted(directory.iterdir()) if any(project.iterdir())]


def write_refs(directory: Path, refs: Sequence[Ref], temporary_file: Callable[[], Path]) -> None:
    """When this returns, all of them are durable under their names. Raises StorageFull or OSError.

    Data first, then names, then the directories that hold the names, as with objects.
    """
    with full_disk_told():
        _make_directories({directory / str(_project(ref)) for ref in refs}, directory)
        staged: list[tuple[Path, Path]] = []
        try:
            for ref in refs:
                staged.append((temporary_file(), directory / ref.place))
                staged[-1][0].write_text(ref.model_dump_json(indent=1) + "\n", encoding="utf-8")
            sync_all([temporary for temporary, _ in staged], directory)
            for temporary, target in staged:
                temporary.replace(target)
        finally:
            for temporary, _ in staged:
                temporary.unlink(missing_ok=True)
        sync_all({target.parent for _, target in staged}, directory)


def _project(ref: Ref) -> UUID:
    return ref.id if isinstance(ref, ProjectRef) else ref.project_id


def _make_directories(projects: set[Path], directory: Path) -> None:
    new = [project for project in projects if not project.is_dir()]
    for project in new:
        project.mkdir(parents=True, exist_ok=True)
    if new:
        sync_path(directory)
        sync_path(directory.parent)
