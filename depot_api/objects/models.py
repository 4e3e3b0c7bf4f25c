"""Content by hash on the wire."""

from pydantic import BaseModel, Field

from depot_api.wire import Sha256Hex, WireModel

MAX_MISSING_HASHES = 10_000  # one JSON body of 700 KB
MAX_FETCH_OBJECTS = 1_000  # what one streamed answer carries; more are asked for in more requests


class BeingRestored(BaseModel):
    """Content that an archive restores: hours later it is there."""

    detail: str
    sha256: list[str]


class MissingQuery(WireModel):
    sha256: list[Sha256Hex] = Field(max_length=MAX_MISSING_HASHES)


class MissingAnswer(BaseModel):
    missing: list[str] = Field(description="What has to be sent, in the order asked.")


class FetchQuery(WireModel):
    sha256: list[Sha256Hex] = Field(min_length=1, max_length=MAX_FETCH_OBJECTS)


class StoredObject(BaseModel):
    sha256: str
    size_bytes: int
    stored_bytes: int


class StoredPack(BaseModel):
    stored: list[StoredObject]
