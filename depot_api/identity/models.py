"""Roles, scopes and the wire models of signing in."""

from enum import StrEnum
from typing import Annotated, Self
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, Field, model_validator

from depot_api.identity.passwords import MAX_PASSWORD_CHARACTERS, MIN_PASSWORD_CHARACTERS
from depot_api.wire import Integer, Text, Timestamp, WireModel

MAX_TOKEN_DAYS = 3650
NewPassword = Annotated[Text, Field(min_length=MIN_PASSWORD_CHARACTERS, max_length=MAX_PASSWORD_CHARACTERS)]


class StudioRole(StrEnum):
    VIEWER = "viewer"
    EDITOR = "editor"
    ADMIN = "admin"


class TokenScope(StrEnum):
    """`pipeline` reads, and writes validations, which no other token and no person can. Only admins make one."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"
    PIPELINE = "pipeline"


class Credentials(WireModel):
    username: Text = Field(max_length=100)
    password: Text = Field(max_length=MAX_PASSWORD_CHARACTERS)


class AccessToken(BaseModel):
    access_token: str
    token_type: str = "bearer"  # noqa: S105 - the OAuth 2 name of the kind of token
    expires_in: int = Field(description="Seconds.")


class Me(BaseModel):
    id: UUID
    username: str
    display_name: str
    studio_role: StudioRole


class PasswordChange(WireModel):
    current_password: Text = Field(max_length=MAX_PASSWORD_CHARACTERS)
    new_password: NewPassword


class TokenCreate(WireModel):
    name: Text = Field(min_length=1, max_length=200, description="What it is for.")
    scope: TokenScope
    expires_in_days: Integer | None = Field(default=None, ge=1, le=MAX_TOKEN_DAYS)
    expires_at: Timestamp | None = None

    @model_validator(mode="after")
    def _expires_once(self) -> Self:
        if (self.expires_in_days is None) == (self.expires_at is None):
            raise ValueError("send either expires_in_days or expires_at")
        return self


class ApiToken(BaseModel):
    id: UUID
    user_id: UUID
    name: str
    scope: TokenScope
    expires_at: AwareDatetime
    revoked_at: AwareDatetime | None
    created_at: AwareDatetime


class CreatedToken(ApiToken):
    token: str = Field(description="Shown this once: only its hash is kept.")
