"""Roles, scopes and the wire models of signing in."""

from enum import StrEnum
from uuid import UUID

from pydantic import BaseModel, Field

from depot_api.wire import Text, WireModel


class StudioRole(StrEnum):
    VIEWER = "viewer"
    EDITOR = "editor"
    ADMIN = "admin"


class TokenScope(StrEnum):
    """`pipeline` reads, and writes validations, which no other token and no person can."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"
    PIPELINE = "pipeline"


class Credentials(WireModel):
    username: Text = Field(max_length=100)
    # Longer input would only cost hashing time.
    password: Text = Field(max_length=1024)


class AccessToken(BaseModel):
    access_token: str
    token_type: str = "bearer"  # noqa: S105 - the OAuth 2 name of the kind of token
    expires_in: int = Field(description="Seconds.")


class Me(BaseModel):
    id: UUID
    username: str
    display_name: str
    studio_role: StudioRole
