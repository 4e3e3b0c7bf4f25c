"""Permissions by path on the wire."""

from enum import StrEnum

from pydantic import BaseModel, Field, model_validator

from depot_api.patterns import Pattern
from depot_api.projects.models import ProjectRole
from depot_api.wire import Text, WireModel

MAX_RULES = 200  # more is not read by anybody any more


class PathAccess(StrEnum):
    """Ascending: each includes those before it."""

    NONE = "none"
    READ = "read"
    WRITE = "write"
    DELETE = "delete"


class PathRule(WireModel):
    """About one user, one role, or with neither about every member below manager."""

    pattern: Pattern
    access: PathAccess
    username: Text | None = Field(default=None, max_length=100)
    role: ProjectRole | None = None

    @model_validator(mode="after")
    def _has_one_subject(self) -> "PathRule":
        if self.username is not None and self.role is not None:
            raise ValueError("give username or role, not both")
        if self.role is not None and self.role.covers(ProjectRole.MANAGER):
            raise ValueError("rules are for members below manager: who writes the rules cannot be locked out by them")
        return self


class PathRules(WireModel):
    """In order: of the rules that match a path, the last one counts."""

    rules: list[PathRule] = Field(max_length=MAX_RULES)


class MyPathAccess(BaseModel):
    """What the rules leave you at a path. Your role may still allow less."""

    path: str
    access: PathAccess
