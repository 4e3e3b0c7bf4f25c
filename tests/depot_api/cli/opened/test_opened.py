import json
from collections.abc import Callable
from pathlib import Path

import pytest

from depot_api.client import DepotClient

MakeTree = Callable[[str, dict[str, bytes]], Path]


@pytest.fixture
def work(depot, project: str, tree: MakeTree) -> Path:
    """A workspace that has changelist 1."""
    root = tree("work", {"Content/a": b"1", "Content/b": b"2", "c": b"3"})
    depot.json("submit", root, "-p", project, "-m", "first")
    return root


def opened(depot, root: Path) -> dict[str, str]:
    return {one["path"]: one["action"] for one in depot.json("status", root)["opened"]}


def test_files_are_opened_for_what_is_asked(depot, work: Path) -> None:
    (work / "Content/new").write_bytes(b"4")
    assert depot.json("edit", work / "Content/a")["files"] == [
        {"path": "Content/a", "action": "edit", "base_version": 1}
    ]
    assert depot.json("add", work / "Content")["files"] == [
        {"path": "Content/new", "action": "add", "base_version": None}
    ]
    done = depot("delete", work / "c")
    assert done.stdout.splitlines() == ["1 file opened:", "  delete  c (#1)"]
    assert not (work / "c").exists()
    assert opened(depot, work) == {"Content/a": "edit", "Content/new": "add", "c": "delete"}
    told = depot("status", work).stdout
    assert "3 files opened, to submit with --opened:" in told
    assert "  add     Content/new (new)" in told


def test_a_directory_is_all_files_below_it(depot, work: Path) -> None:
    assert [one["path"] for one in depot.json("edit", work / "Content")["files"]] == ["Content/a", "Content/b"]
    assert len(depot.json("edit", work)["files"]) == 3
    assert [one["path"] for one in depot.json("revert", work / "Content")["reverted"]] == ["Content/a", "Content/b"]
    assert opened(depot, work) == {"c": "edit"}


def test_what_changed_is_found_and_opened(depot, work: Path) -> None:
    (work / "Content/a").write_bytes(b"changed")
    (work / "c").unlink()
    (work / "d").write_bytes(b"new")
    assert depot("open", "--dry-run", work).stdout.splitlines()[0] == "3 files to open:"
    assert opened(depot, work) == {}
    assert [one["path"] for one in depot.json("open", work / "Content")["files"]] == ["Content/a"]
    assert depot.json("open", work)["files"] == [
        {"path": "c", "action": "delete", "base_version": 1},
        {"path": "d", "action": "add", "base_version": None},
    ]
    assert depot("open", work).stdout == "Nothing changed that is not opened.\n"
    (work / "Content/a").unlink()
    (work / "c").write_bytes(b"back, but different")
    depot.json("open", work)
    assert opened(depot, work) == {"Content/a": "delete", "c": "edit", "d": "add"}


def test_only_opened_files_are_submitted(api, depot, work: Path, project: str) -> None:
    (work / "Content/a").write_bytes(b"mine")
    (work / "Content/b").write_bytes(b"not yet")
    (work / "new").write_bytes(b"new")
    depot.json("edit", work / "Content/a")
    depot.json("add", work / "new")
    depot.json("delete", work / "c")
    done = depot.json("submit", work, "--opened", "-m", "second")
    assert (done["number"], done["added"], done["edited"], done["deleted"]) == (2, 1, 1, 1)
    with DepotClient(api.url, api.token) as client:
        branch = client.find_branch(client.find_project(project).id, "main")
        assert {path: one.version for path, one in client.manifest(branch.id).files.items()} == {
            "Content/a": 2,
            "Content/b": 1,
            "new": 1,
        }
    status = depot.json("status", work)
    assert (status["opened"], status["at"]) == ([], 2)
    assert [item["path"] for item in status["changed_here"]] == ["Content/b"]


def paths_before(depot, root: Path, path: str, project: str) -> list[str]:
    """What a file's history says it was called, newest first."""
    with DepotClient(depot.environment["DEPOT_URL"], depot.environment["DEPOT_TOKEN"]) as client:
        asset = client.find_asset(client.find_project(project).id, path)
        found = client._http.request("GET", f"/assets/{asset.id}/history")
        return [one["path"] for one in json.loads(found.data)["items"]]


def test_a_rename_keeps_the_history(depot, work: Path, project: str) -> None:
    (work / "Content/a").rename(work / "renamed")
    assert "  move    renamed (from Content/a)" in depot("status", work).stdout
    done = depot.json("submit", work, "-m", "found by its content")
    assert (done["moved"], done["added"], done["deleted"]) == (1, 0, 0)
    assert paths_before(depot, work, "renamed", project) == ["renamed", "Content/a"]
    assert depot.json("status", work)["changed_here"] == []


def test_a_move_that_is_opened_may_change_the_file_too(depot, work: Path, project: str) -> None:
    assert depot.json("move", work / "Content/a", work / "New/a")["files"] == [
        {"path": "New/a", "moved_from": "Content/a"}
    ]
    depot.json("move", work / "New", work / "Newer")
    (work / "Newer/a").write_bytes(b"changed too")
    assert opened(depot, work) == {"Content/a": "delete", "Newer/a": "add"}
    done = depot.json("submit", work, "--opened", "-m", "moved twice, and changed")
    assert (done["moved"], done["added"], done["deleted"]) == (1, 0, 0)
    assert paths_before(depot, work, "Newer/a", project) == ["Newer/a", "Content/a"]
    assert (opened(depot, work), (work / "New").exists()) == ({}, False)


def test_what_is_moved_back_or_cannot_be_moved(depot, work: Path) -> None:
    depot.json("move", work / "Content", work / "Elsewhere")
    assert sorted(opened(depot, work)) == ["Content/a", "Content/b", "Elsewhere/a", "Elsewhere/b"]
    depot.json("move", work / "Elsewhere", work / "Content")
    assert opened(depot, work) == {}
    for old, new, why in (
        ("c", "Content/a", "is there already"),
        ("Content", "Content/below", "into itself"),
        ("nothing", "new", "did not come from the depot"),
        ("c", "C", "differs only in case"),
    ):
        refused = depot("move", work / old, work / new)
        assert (refused.returncode, why in refused.stderr) == (1, True), refused.stderr
    assert opened(depot, work) == {}


def test_opened_files_that_did_not_change_stay_opened(depot, work: Path) -> None:
    depot.json("edit", work / "Content")
    assert depot.json("submit", work, "--opened", "-m", "m")["number"] is None
    (work / "Content/a").write_bytes(b"changed")
    assert depot.json("submit", work, "--opened", "-m", "m")["edited"] == 1
    assert opened(depot, work) == {"Content/b": "edit"}
    (work / "Content/b").write_bytes(b"changed")
    depot.json("submit", work, "-m", "everything")
    assert opened(depot, work) == {}


def test_a_submit_of_opened_files_that_are_not_as_opened_is_refused(depot, work: Path) -> None:
    done = depot("submit", work, "--opened", "-m", "m")
    assert (done.returncode, "No file is opened" in done.stderr) == (1, True)
    depot.json("edit", work / "Content/a")
    (work / "Content/a").unlink()
    depot.json("delete", work / "c")
    (work / "c").write_bytes(b"back")
    done = depot("submit", work, "--opened", "-m", "m")
    assert done.returncode == 1
    assert "Content/a is opened for edit, but gone" in done.stderr
    assert "c is opened for delete, but there" in done.stderr
    depot.json("open", work)
    done = depot.json("submit", work, "--opened", "-m", "m")
    assert (done["edited"], done["deleted"]) == (1, 1)


def test_revert_puts_back_what_the_workspace_had(depot, work: Path, project: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    depot.json("sync", other, "-p", project)
    (other / "Content/a").write_bytes(b"a newer version, which this workspace does not have")
    depot.json("submit", other, "-m", "second")
    large = bytes(3_000_000)
    (work / "large").write_bytes(large)
    depot.json("submit", work, "-m", "large")
    (work / "Content/a").write_bytes(b"changed")
    (work / "large").write_bytes(b"small")
    (work / "new").write_bytes(b"new")
    depot.json("open", work)
    depot.json("delete", work / "c")
    done = depot.json("revert", work)
    assert (len(done["reverted"]), done["restored"], done["changed"]) == (4, 3, [])
    assert (work / "Content/a").read_bytes() == b"1"
    assert (work / "c").read_bytes() == b"3"
    assert (work / "large").read_bytes() == large
    assert (work / "new").read_bytes() == b"new"
    assert opened(depot, work) == {}
    assert depot.json("verify", work)["is_intact"]


def test_revert_of_unchanged_files_loses_nothing(depot, work: Path) -> None:
    (work / "Content/a").write_bytes(b"changed")
    for name in ("new", "gone"):
        (work / name).write_bytes(b"new")
    depot.json("edit", work)
    depot.json("add", work / "new", work / "gone")
    (work / "gone").unlink()
    done = depot.json("revert", "-a", work)
    assert [one["path"] for one in done["reverted"]] == ["Content/b", "c", "gone"]
    assert opened(depot, work) == {"Content/a": "edit", "new": "add"}
    assert (work / "Content/a").read_bytes() == b"changed"


@pytest.mark.parametrize(
    ("command", "path", "why"),
    [
        ("edit", "new", "did not come from the depot; `depot add` opens new files"),
        ("edit", "c", "is opened for delete"),
        ("add", "Content/b", "came from the depot; `depot edit` opens it"),
        ("add", "nowhere", "is no new file, and holds none"),
        ("delete", "new", "did not come from the depot"),
        ("delete", "Content/a", "is opened for edit; `depot revert` it first"),
        ("delete", "Content/b", "was changed here, which would be lost"),
        ("revert", "new", "is not opened"),
        ("open", "nowhere", "is not in the workspace"),
    ],
)
def test_what_cannot_be_done_is_refused_whole(depot, work: Path, command: str, path: str, why: str) -> None:
    (work / "new").write_bytes(b"new")
    depot.json("edit", work / "Content/a")
    depot.json("delete", work / "c")
    (work / "Content/b").write_bytes(b"changed")
    before = opened(depot, work)
    fine = [work / "Content/a"] if command in ("edit", "revert", "open") else []
    done = depot(command, *fine, work / path)
    assert done.returncode == 1
    assert "Nothing was done." in done.stderr
    assert f"{path} {why}" in done.stderr
    assert opened(depot, work) == before
    assert (work / "Content/a").exists()
    assert (work / "Content/b").read_bytes() == b"changed"


def test_names_that_the_depot_refuses_are_not_opened(depot, work: Path) -> None:
    (work / "content").mkdir()
    (work / "content/A").write_bytes(b"differs in case only")
    (work / "con.txt").write_bytes(b"a device on Windows")
    for path in ("content/A", "con.txt"):
        assert depot("add", work / path).returncode == 1
    assert depot("open", work).returncode == 1
    assert opened(depot, work) == {}


def test_paths_are_relative_to_where_the_command_runs(depot, work: Path, tmp_path: Path) -> None:
    (depot.directory / "link").symlink_to(work)
    assert [one["path"] for one in depot.json("edit", "link/Content/a", "link/c")["files"]] == ["Content/a", "c"]
    outside = tmp_path / "outside"
    outside.write_bytes(b"")
    (work / "through").symlink_to(tmp_path)
    for path in (outside, work / ".." / "outside", work / "through" / "outside", work / ".depot" / "workspace.sqlite"):
        assert depot("add", path).returncode == 2
    assert depot("revert").returncode == 2
    assert depot("open").returncode == 2
    assert depot("add", work / "through").returncode == 1
