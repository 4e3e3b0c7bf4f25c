"""What all wire models share: strictness, keyset pages and their cursors."""

import base64
import binascii
import json
import math
import re
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

from fastapi import Query
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    Strict,
    WithJsonSchema,
)

from depot_api.problems import Invalid, ProblemError

DEFAULT_PAGE_ROWS = 100
MAX_PAGE_ROWS = 1000
NIL = UUID(int=0)  # before every id
MAX_JSON_DEPTH = 20  # so that reading it back always works


class WireModel(BaseModel):
    """Unknown fields are refused, so that a misspelt one is never silently ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _storable(text: str) -> str:
    """PostgreSQL stores no NUL, and UTF-8 has no lone surrogates."""
    if "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("must not hold NUL or lone surrogates")
    return text


def _sha256(text: str) -> str:
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise ValueError("must be 64 lower-case hex digits")
    return text


def _storable_json(value: Any, depth: int = 0) -> Any:
    """PostgreSQL's jsonb takes no NUL and no lone surrogates; depth is bounded so that reading it back always works."""
    if depth > MAX_JSON_DEPTH:
        raise ValueError(f"must not be nested deeper than {MAX_JSON_DEPTH}")
    if isinstance(value, str) and ("\x00" in value or any("\ud800" <= c <= "\udfff" for c in value)):
        raise ValueError("must not hold NUL or lone surrogates")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("numbers must be finite")
    if isinstance(value, dict):
        for key, member in value.items():
            _storable_json(key, depth)
            _storable_json(member, depth + 1)
    if isinstance(value, list):
        for member in value:
            _storable_json(member, depth + 1)
    return value


def _integral(value: object) -> object:
    """JSON knows one kind of number: 1.0 is the integer 1 (JSON Schema, section 4.2.3)."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _timestamp(value: object) -> object:
    """pydantic would also take a number, as seconds or, when large, as milliseconds."""
    if isinstance(value, str) and re.match(r"\d{4}-\d{2}-\d{2}T", value):
        return value
    raise ValueError("must be a time as in RFC 3339, with its zone, such as 2026-11-23T16:30:00Z")


Text = Annotated[str, AfterValidator(_storable), WithJsonSchema({"type": "string", "pattern": r"^[^\x00]*$"})]
Integer = Annotated[int, Strict(), BeforeValidator(_integral)]
Boolean = Annotated[bool, Strict()]
Timestamp = Annotated[AwareDatetime, BeforeValidator(_timestamp)]
Sha256Hex = Annotated[str, AfterValidator(_sha256), WithJsonSchema({"type": "string", "pattern": "^[0-9a-f]{64}$"})]
StorableJson = Annotated[dict[str, Any], AfterValidator(_storable_json)]
# psycopg hands bytea over as bytes; the wire has hex.
Sha256FromBytes = Annotated[bytes, PlainSerializer(lambda raw: raw.hex(), return_type=str)]


Limit = Annotated[int, Query(ge=1, le=MAX_PAGE_ROWS, description="Rows in a page.")]
Cursor = Annotated[str | None, Query(max_length=4096, description="`next_cursor` of the page before.")]

Row = TypeVar("Row")


class Page(BaseModel, Generic[Row]):
    """One keyset page; `next_cursor` is null on the last."""

    items: list[Row]
    next_cursor: str | None


def encode_cursor(*key: str | int) -> str:
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")


def decode_cursor(cursor: str | None, *types: type[str] | type[int]) -> list[str | int] | None:
    """The key that `encode_cursor` was given. Raises Invalid for anything else."""
    if cursor is None:
        return None
    try:
        key = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if isinstance(key, list) and [type(part) for part in key] == list(types):
            return [_storable(part) if isinstance(part, str) else _bigint(part) for part in key]
    except (ValueError, binascii.Error, RecursionError):
        pass
    raise Invalid(
        "The cursor is not one that this route gave. Take next_cursor from the page before, or leave it out.",
        errors=[ProblemError(detail="not a cursor of this route", pointer="/cursor")],
    )


def decode_uuid_cursor(cursor: str | None) -> UUID | None:
    """For routes in the order of their rows' ids. Raises Invalid."""
    place = decode_cursor(cursor, str)
    try:
        return UUID(str(place[0])) if place else None
    except ValueError:
        raise Invalid("The cursor is not one that this route gave. Leave it out to begin again.") from None


def _bigint(number: int) -> int:
    if not -(2**63) <= number < 2**63:
        raise ValueError("out of range")
    return number
