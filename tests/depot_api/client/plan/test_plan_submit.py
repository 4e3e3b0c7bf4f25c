from hypothesis import given
from hypothesis import strategies as st

from depot_api.client.models import Action, Version
from depot_api.client.plan import plan_submit

paths = st.sampled_from(["a", "b", "c/d", "c/e", "f"])
hashes = st.sampled_from(["1" * 64, "2" * 64, "3" * 64])
trees = st.dictionaries(paths, hashes)
versions = st.dictionaries(paths, st.builds(Version, st.integers(1, 3), hashes, st.just(1)))


@given(trees, versions)
def test_applying_the_items_to_the_base_gives_the_tree(local: dict[str, str], base: dict[str, Version]) -> None:
    after = {path: version.sha256 for path, version in base.items()}
    for item in plan_submit(local, base, delete_missing=True):
        if item.action is Action.DELETE:
            del after[item.path]
        else:
            assert item.sha256 is not None
            after[item.path] = item.sha256
    assert after == local


@given(trees, versions, st.booleans())
def test_each_item_starts_from_the_version_that_was_had(
    local: dict[str, str], base: dict[str, Version], delete: bool
) -> None:
    items = plan_submit(local, base, delete_missing=delete)
    assert len({item.path for item in items}) == len(items)
    for item in items:
        assert item.base_version == (base[item.path].version if item.path in base else None)
        assert (item.action is Action.ADD) == (item.path not in base)
        assert (item.action is Action.DELETE) == (item.sha256 is None)


@given(trees, versions)
def test_nothing_is_deleted_unless_asked(local: dict[str, str], base: dict[str, Version]) -> None:
    assert all(item.action is not Action.DELETE for item in plan_submit(local, base, delete_missing=False))


@given(trees)
def test_an_equal_tree_gives_nothing(local: dict[str, str]) -> None:
    base = {path: Version(1, sha256, 1) for path, sha256 in local.items()}
    assert plan_submit(local, base, delete_missing=True) == []
