"""Reviews and comments on the wire."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field

from depot_api.wire import Text, WireModel

MAX_REVIEWERS = 20  # whoever asks more people asks nobody


class Verdict(StrEnum):
    PENDING = "pending"
    APPROVED = "approved"
    CHANGES_REQUESTED = "changes_requested"


class ReviewRequest(WireModel):
    reviewers: list[Annotated[Text, Field(min_length=1, max_length=100)]] = Field(
        default=[], max_length=MAX_REVIEWERS, description="Usernames. With none, whoever may approve there can."
    )


class Decision(WireModel):
    verdict: Verdict = Field(description="`approved` or `changes_requested`; `pending` takes yours back.")
    comment: Text = Field(default="", max_length=10_000)


class Review(BaseModel):
    """One reviewer's verdict on a changelist. It falls back to pending when an item or the branch changes."""

    id: UUID
    project_id: UUID
    changelist_id: UUID
    reviewer_id: UUID
    reviewer: str
    verdict: Verdict
    comment: str
    created_at: datetime
    decided_at: datetime | None


class CommentCreate(WireModel):
    body: Text = Field(min_length=1, max_length=10_000)
    path: Text | None = Field(default=None, max_length=4096, description="An item of the changelist.")


class Comment(BaseModel):
    id: UUID
    changelist_id: UUID
    author_id: UUID
    author: str
    path: str | None
    body: str
    created_at: datetime
