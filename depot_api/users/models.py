"""Users on the wire."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, BaseModel, Field

from depot_api.identity.models import NewPassword, StudioRole
from depot_api.wire import Boolean, Text, WireModel

MAX_DISPLAY_NAME = 200
Username = Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9._@-]{0,99}$")]


def _storable_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be one line of printable characters")
    return text


DisplayName = Annotated[Text, AfterValidator(_storable_line), Field(max_length=MAX_DISPLAY_NAME)]


class UserCreate(WireModel):
    username: Username
    display_name: DisplayName = ""
    password: NewPassword
    studio_role: StudioRole = StudioRole.VIEWER


class UserUpdate(WireModel):
    """What is left out stays as it is."""

    display_name: DisplayName | None = None
    studio_role: StudioRole | None = None
    is_active: Boolean | None = None


class PasswordReset(WireModel):
    password: NewPassword


class User(BaseModel):
    id: UUID
    username: str
    display_name: str
    studio_role: StudioRole
    is_active: bool
    created_at: datetime
