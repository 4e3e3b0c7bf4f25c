"""The three-way decision for one path, by content: no database, no names of branches."""

from enum import StrEnum, auto
from typing import NamedTuple


class Version(NamedTuple):
    """A version that lives at a path. Absence is None."""

    key: str
    path: str
    number: int
    sha256: bytes
    size_bytes: int


Side = Version | None

# The content of a base on which two older merges disagreed: no version has it, so neither side is unchanged since.
DISPUTED = b""


class Decision(StrEnum):
    KEEP = auto()  # the source changed nothing
    SAME = auto()  # both sides made the same of it
    TAKE = auto()  # only the source changed it
    CONFLICT = auto()


class ConflictKind(StrEnum):
    """What the source did, then what the target did."""

    BOTH_EDITED = "both_edited"
    BOTH_ADDED = "both_added"
    EDIT_DELETE = "edit_delete"
    DELETE_EDIT = "delete_edit"
    MOVE_EDIT = "move_edit"
    EDIT_MOVE = "edit_move"
    MOVE_DELETE = "move_delete"
    DELETE_MOVE = "delete_move"
    BOTH_MOVED = "both_moved"
    PATH_COLLISION = "path_collision"


MOVES = frozenset(
    {
        ConflictKind.MOVE_EDIT,
        ConflictKind.EDIT_MOVE,
        ConflictKind.MOVE_DELETE,
        ConflictKind.DELETE_MOVE,
        ConflictKind.BOTH_MOVED,
    }
)


def disputed(version: Version) -> Version:
    return version._replace(number=0, sha256=DISPUTED, size_bytes=0)


def content(side: Side) -> bytes | None:
    return side.sha256 if side else None


def decide(base: Side, source: Side, target: Side) -> Decision:
    if content(source) == content(base):
        return Decision.KEEP
    if content(source) == content(target):
        return Decision.SAME
    return Decision.TAKE if content(target) == content(base) else Decision.CONFLICT


def conflict_kind(base: Side, source: Side, target: Side) -> ConflictKind:
    """Of a path for which `decide` says CONFLICT."""
    if base is None:
        return ConflictKind.BOTH_ADDED
    if source is None:
        return ConflictKind.DELETE_EDIT
    return ConflictKind.EDIT_DELETE if target is None else ConflictKind.BOTH_EDITED


def move_kind(base: Version, source: Side, target: Side) -> ConflictKind:
    """Of a file that at least one side has moved."""
    if source is None:
        return ConflictKind.DELETE_MOVE
    if target is None:
        return ConflictKind.MOVE_DELETE
    if source.key == base.key:
        return ConflictKind.EDIT_MOVE
    return ConflictKind.MOVE_EDIT if target.key == base.key else ConflictKind.BOTH_MOVED
