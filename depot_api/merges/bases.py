"""What a branch knows, and where two branches last knew the same: the base of a merge.

A point is a branch as of a changelist. What it knows is, for each branch of the project, the newest changelist whose
state it contains: its own history, its parent's up to where it began, and whatever was merged into either. So the
common points of two branches follow from the recorded merges alone, criss-cross and back to the parent too.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple
from uuid import UUID

Knowledge = Mapping[UUID, int]


class Point(NamedTuple):
    branch_id: UUID
    at: int


class Landed(NamedTuple):
    """A merge that has landed: from landed_no on, the target knows what the source was at source_at."""

    source: Point
    target: Point


class MergeHistory:
    """The forks and the landed merges of a project, the merges in the order in which they landed."""

    def __init__(self, parents: Mapping[UUID, Point | None], landed: Iterable[Landed]) -> None:
        self._parents = parents
        # Of each branch what it knew after each merge into it, in order.
        self._learned: dict[UUID, list[tuple[int, dict[UUID, int]]]] = {}
        for merge in landed:
            known = joined(self.known(merge.target), self.known(merge.source))
            self._learned.setdefault(merge.target.branch_id, []).append((merge.target.at, known))

    def known(self, point: Point) -> dict[UUID, int]:
        learned = [known for no, known in self._learned.get(point.branch_id, ()) if no <= point.at]
        if learned:
            return learned[-1] | {point.branch_id: point.at}
        parent = self._parents[point.branch_id]
        inherited = self.known(parent) if parent else {}
        return inherited | {point.branch_id: point.at}

    def common_points(self, left: Knowledge, right: Knowledge) -> list[Point]:
        """The newest points that both contain: one, or several after a criss-cross. Never none within a project."""
        points = sorted(Point(branch, min(left[branch], right[branch])) for branch in left.keys() & right.keys())
        known = {point: self.known(point) for point in points}
        # One at a time: merges that changed nothing once shared a number, and may contain each other in a circle.
        for point in tuple(points):
            if any(known[other].get(point.branch_id, -1) >= point.at for other in points if other != point):
                points.remove(point)
        return points


def joined(left: Knowledge, right: Knowledge) -> dict[UUID, int]:
    return {branch: max(left.get(branch, 0), right.get(branch, 0)) for branch in left.keys() | right.keys()}
