"""What a project's content takes, on the wire."""

from datetime import date, datetime

from pydantic import BaseModel, Field


class Storage(BaseModel):
    used_bytes: int = Field(description="Before compression, each content once.")
    objects: int = Field(description="Different contents.")
    reserved_bytes: int = Field(description="Of uploads that are under way.")
    quota_bytes: int | None


class StorageSnapshot(BaseModel):
    day: date = Field(description="In UTC.")
    taken_at: datetime
    used_bytes: int
    objects: int
    quota_bytes: int | None
