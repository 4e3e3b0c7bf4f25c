from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from depot_api.client import DepotClient

MakeTree = Callable[[str, dict[str, bytes]], Path]


@pytest.fixture
def synced(depot, project: str, tree: MakeTree, tmp_path: Path) -> tuple[Path, Path]:
    """Two workspaces of the same changelist."""
    first, second = tree("first", {"Content/a": b"1", "b": b"2", "c": b"3"}), tmp_path / "second"
    depot.json("submit", first, "-p", project, "-m", "m")
    depot.json("sync", second, "-p", project)
    return first, second


def contents(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file() and ".depot" not in path.parts)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def change(root: Path) -> None:
    (root / "Content/a").write_bytes(b"changed")
    (root / "b").unlink()
    (root / "new").mkdir()
    (root / "new/d").write_bytes(b"added")


def test_work_goes_from_one_workspace_to_another(depot, project: str, synced: tuple[Path, Path]) -> None:
    first, second = synced
    assert depot("shelve", first, "-m", "wip").stdout == "Nothing changed: nothing was shelved.\n"
    change(first)
    shelved = depot.json("shelve", first, "-m", "half done")
    assert (shelved["shelf"]["items_count"], shelved["sent_objects"]) == (3, 2)
    assert contents(first) == {"Content/a": b"changed", "c": b"3", "new/d": b"added"}
    listed = depot.json("shelves", "-p", project, "--mine")["shelves"]
    assert [(one["description"], one["owner"]) for one in listed] == [("half done", "admin")]
    assert "half done" in depot("shelves", "-p", project).stdout
    done = depot.json("unshelve", shelved["shelf"]["id"], second)
    assert (done["written"], done["removed"], done["conflicts"]) == (2, 1, [])
    assert contents(second) == contents(first)
    again = depot.json("unshelve", shelved["shelf"]["id"], second)
    assert (again["written"], again["unchanged"]) == (0, 3)
    submitted = depot.json("submit", second, "-m", "done")
    assert (submitted["added"], submitted["edited"], submitted["deleted"]) == (1, 1, 1)
    assert depot.json("shelve", first, "--delete", shelved["shelf"]["id"])["deleted"] == shelved["shelf"]["id"]
    assert depot("shelves", "-p", project).stdout == "No shelves.\n"


def test_local_changes_are_left_alone(depot, synced: tuple[Path, Path]) -> None:
    first, second = synced
    change(first)
    shelf = depot.json("shelve", first, "-m", "wip")["shelf"]["id"]
    (second / "Content/a").write_bytes(b"mine")
    (second / "new").mkdir()
    (second / "new/d").write_bytes(b"mine too")
    done = depot("unshelve", shelf, second)
    assert done.returncode == 1
    assert "Content/a: changed here and in the depot" in done.stdout
    assert "new/d: a file that did not come from the depot is in the way" in done.stdout
    assert contents(second) == {"Content/a": b"mine", "c": b"3", "new/d": b"mine too"}
    assert depot("unshelve", shelf, second, "--force").returncode == 0
    assert contents(second) == contents(first)


def test_what_began_from_another_version_is_a_conflict(depot, synced: tuple[Path, Path]) -> None:
    first, second = synced
    (first / "c").write_bytes(b"work on version 1")
    shelf = depot.json("shelve", first, "-m", "wip")["shelf"]["id"]
    (second / "c").write_bytes(b"version 2")
    depot.json("submit", second, "-m", "faster")
    done = depot.json("unshelve", shelf, second, exit_code=1)
    assert done["conflicts"] == [{"path": "c", "reason": "shelved from another version than the workspace has"}]
    assert (second / "c").read_bytes() == b"version 2"


def test_a_shelf_is_updated(api, depot, synced: tuple[Path, Path]) -> None:
    first, _ = synced
    change(first)
    shelf = depot.json("shelve", first, "-m", "wip")["shelf"]["id"]
    (first / "b").write_bytes(b"2")
    assert depot.json("shelve", first, "--into", shelf)["shelf"]["items_count"] == 2
    with DepotClient(api.url, api.token) as client:
        assert [item.path for item in client.shelf_items(shelf)] == ["Content/a", "new/d"]


def test_changelists_are_shelved_and_filled(api, depot, project: str, synced: tuple[Path, Path]) -> None:
    first, _ = synced
    change(first)
    shelf = depot.json("shelve", first, "-m", "wip")["shelf"]["id"]
    with DepotClient(api.url, api.token) as client:
        of = client.find_project(project)
        changelist = client.create_changelist(of.id, client.find_branch(of.id, "main").id, "for later")
    filled = depot.json("unshelve", shelf, "--changelist", changelist.id)
    assert filled == {"changelist_id": str(changelist.id), "items_count": 3}
    assert depot("unshelve", shelf, "--changelist", changelist.id).returncode == 1
    assert depot("unshelve", shelf, "--changelist", changelist.id, "--force").returncode == 0
    shelved = depot.json("shelve", "--changelist", changelist.id)["shelf"]
    assert (shelved["description"], shelved["items_count"]) == ("for later", 3)


def test_wrong_usage(depot, tree: MakeTree) -> None:
    assert depot("shelve", "--into", uuid4(), "--changelist", uuid4()).returncode == 2
    assert depot("unshelve", "not-an-id").returncode == 2
    outside = depot("shelve", tree("outside", {"a": b"1"}), "-m", "wip")
    assert outside.returncode == 1
    assert "is not a workspace" in outside.stderr
