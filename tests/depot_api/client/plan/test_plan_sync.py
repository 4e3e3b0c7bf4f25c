from hypothesis import given
from hypothesis import strategies as st

from depot_api.client.models import Version
from depot_api.client.plan import Conflict, ConflictReason, plan_sync

paths = st.sampled_from(["a", "b", "c/d", "c/e", "f"])
hashes = st.sampled_from(["1" * 64, "2" * 64, "3" * 64])
trees = st.dictionaries(paths, hashes)
versions = st.dictionaries(paths, st.builds(Version, st.integers(1, 3), hashes, st.just(1)))


@given(versions, versions, trees, st.booleans())
def test_every_path_gets_exactly_one_decision(
    target: dict[str, Version], have: dict[str, Version], local: dict[str, str], force: bool
) -> None:
    plan = plan_sync(target, have, local, force=force)
    conflicts = [conflict.path for conflict in plan.conflicts]
    decided = [*plan.fetch, *plan.remove, *plan.adopt, *plan.forget, *plan.kept, *conflicts]
    assert sorted(decided) == sorted(target.keys() | have.keys())


@given(versions, versions, trees)
def test_what_the_user_changed_is_never_touched(
    target: dict[str, Version], have: dict[str, Version], local: dict[str, str]
) -> None:
    plan = plan_sync(target, have, local, force=False)
    for path in [*plan.fetch, *plan.remove]:
        lies = local.get(path)
        assert lies is None or lies == have[path].sha256


@given(versions, versions, trees)
def test_without_conflicts_and_local_changes_the_tree_becomes_the_target(
    target: dict[str, Version], have: dict[str, Version], local: dict[str, str]
) -> None:
    plan = plan_sync(target, have, local, force=False)
    after = _applied(plan.fetch, plan.remove, target, local)
    left_alone = {*plan.kept, *(conflict.path for conflict in plan.conflicts)}
    for path in (target.keys() | have.keys()) - left_alone:
        assert after.get(path) == (target[path].sha256 if path in target else None)


@given(versions, versions, trees)
def test_force_always_arrives_at_the_target(
    target: dict[str, Version], have: dict[str, Version], local: dict[str, str]
) -> None:
    plan = plan_sync(target, have, local, force=True)
    after = _applied(plan.fetch, plan.remove, target, local)
    assert not plan.conflicts
    for path in target.keys() | have.keys():
        assert after.get(path) == (target[path].sha256 if path in target else None)


@given(versions, versions, trees)
def test_nothing_that_is_right_is_fetched(
    target: dict[str, Version], have: dict[str, Version], local: dict[str, str]
) -> None:
    plan = plan_sync(target, have, local, force=False)
    assert all(local.get(path) != target[path].sha256 for path in plan.fetch)


def test_reasons_are_told_apart() -> None:
    one, two, three = (Version(number, str(number) * 64, 1) for number in (1, 2, 3))
    plan = plan_sync(
        {"both": two, "deleted here": two, "in the way": two},
        {"both": one, "deleted here": one, "deleted there": one},
        {"both": three.sha256, "in the way": three.sha256, "deleted there": three.sha256},
        force=False,
    )
    assert plan.conflicts == [
        Conflict("both", ConflictReason.BOTH_CHANGED),
        Conflict("deleted here", ConflictReason.DELETED_AND_CHANGED),
        Conflict("deleted there", ConflictReason.CHANGED_AND_DELETED),
        Conflict("in the way", ConflictReason.IN_THE_WAY),
    ]


def _applied(fetch: list[str], remove: list[str], target: dict[str, Version], local: dict[str, str]) -> dict[str, str]:
    after = {path: sha256 for path, sha256 in local.items() if path not in remove}
    return after | {path: target[path].sha256 for path in fetch}
