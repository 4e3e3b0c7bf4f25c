"""What is done with each path of a shelf."""

import pytest

from depot_api.client.models import ShelfItem, Version
from depot_api.client.plan import ConflictReason
from depot_api.client.shelve import plan_unshelve

HAVE = {"a": Version(2, "had", 1)}


def edit(base_version: int) -> ShelfItem:
    return ShelfItem(path="a", action="edit", base_version=base_version, sha256="new", size_bytes=1)


ADD = ShelfItem(path="b", action="add", sha256="new", size_bytes=1)
DELETE = ShelfItem(path="a", action="delete", base_version=2)
MOVE = ShelfItem(path="b", action="move", moved_from="a", base_version=2, sha256="had", size_bytes=1)


@pytest.mark.parametrize(
    ("item", "local", "expected"),
    [
        (edit(2), {"a": "had"}, {"write": ["a"]}),
        (edit(2), {"a": "new"}, {"unchanged": ["a"]}),
        (edit(2), {"a": "mine"}, {"conflicts": [("a", ConflictReason.BOTH_CHANGED)]}),
        (edit(1), {"a": "had"}, {"conflicts": [("a", ConflictReason.OTHER_BASE)]}),
        (ADD, {"a": "had"}, {"write": ["b"]}),
        (ADD, {"b": "mine"}, {"conflicts": [("b", ConflictReason.IN_THE_WAY)]}),
        (DELETE, {"a": "had"}, {"remove": ["a"]}),
        (DELETE, {}, {"unchanged": ["a"]}),
        (DELETE, {"a": "mine"}, {"conflicts": [("a", ConflictReason.BOTH_CHANGED)]}),
        (MOVE, {"a": "had"}, {"remove": ["a"], "write": ["b"]}),
    ],
)
def test_plan(item, local, expected):
    plan = plan_unshelve([item], HAVE, local, force=False)
    conflicts = [(one.path, one.reason) for one in plan.conflicts]
    done = {"write": plan.write, "remove": plan.remove, "unchanged": plan.unchanged, "conflicts": conflicts}
    assert {name: paths for name, paths in done.items() if paths} == expected
    forced = plan_unshelve([item], HAVE, local, force=True)
    assert forced.conflicts == []
