from hypothesis import given
from hypothesis import strategies as st

from depot_api.client.models import Action, Item, Version
from depot_api.client.plan import plan_submit, with_moves

paths = st.sampled_from(["a", "b", "c/d", "c/e", "f"])
hashes = st.sampled_from(["1" * 64, "2" * 64, "3" * 64])
trees = st.dictionaries(paths, hashes)
versions = st.dictionaries(paths, st.builds(Version, st.integers(1, 3), hashes, st.just(1)))


def moves(local: dict[str, str], base: dict[str, str], moved: dict[str, str] | None = None) -> dict[str, str | None]:
    had = {path: Version(7, sha256, 1) for path, sha256 in base.items()}
    items = with_moves(plan_submit(local, had, delete_missing=True), had, moved or {})
    assert all(item.base_version == 7 for item in items if item.action is Action.MOVE)
    return {item.path: item.moved_from for item in items}


def test_a_rename_is_found_by_its_content() -> None:
    assert moves({"new": "1"}, {"old": "1"}) == {"new": "old"}
    assert moves({"new": "2"}, {"old": "1"}) == {"new": None, "old": None}
    assert moves({"old": "1", "new": "1"}, {"old": "1"}) == {"new": None}, "a copy is no move"


def test_which_of_several_went_where_is_not_guessed() -> None:
    assert moves({"new": "1"}, {"old": "1", "older": "1"}) == {"new": None, "old": None, "older": None}
    assert moves({"new": "1", "newer": "1"}, {"old": "1"}) == {"new": None, "newer": None, "old": None}


def test_what_the_user_says_goes_before_the_content() -> None:
    told = {"new": "old"}
    assert moves({"new": "changed"}, {"old": "1"}, told) == {"new": "old"}
    assert moves({"new": "1", "newer": "1"}, {"old": "1", "older": "1"}, told) == {"new": "old", "newer": "older"}
    assert moves({"new": "1", "old": "1"}, {"old": "1"}, told) == {"new": None}, "what is there was not moved away"


@given(trees, versions, st.dictionaries(paths, paths))
def test_applying_the_items_to_the_base_gives_the_tree(
    local: dict[str, str], base: dict[str, Version], moved: dict[str, str]
) -> None:
    items = with_moves(plan_submit(local, base, delete_missing=True), base, moved)
    after: dict[str, str | None] = {path: version.sha256 for path, version in base.items()}
    for item in items:
        for gone in _gone(item):
            del after[gone]
    after |= {item.path: item.sha256 for item in items if item.action is not Action.DELETE}
    assert after == local


def _gone(item: Item) -> list[str]:
    return [item.path] if item.action is Action.DELETE else [item.moved_from] if item.moved_from else []
