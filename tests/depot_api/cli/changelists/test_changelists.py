from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MakeTree = Callable[[str, dict[str, bytes]], Path]


@pytest.fixture
def work(depot, project: str, tree: MakeTree) -> Path:
    """A workspace that has changelist 1."""
    root = tree("work", {"Content/a": b"1", "b": b"2"})
    depot.json("submit", root, "-p", project, "-m", "first\nin two lines")
    return root


@pytest.fixture
def member(api, depot, project: str) -> Callable[[str], tuple[str, Any]]:
    """Makes a member of the project with a role: the name, and the command as that user."""

    def make(role: str) -> tuple[str, Any]:
        user = api.user()
        with api.client() as http:
            (found,) = http.get("/projects", params={"name": project}).json()["items"]
            http.post(f"/projects/{found['id']}/members", json={"username": user.name, "role": role}).raise_for_status()
        return user.name, type(depot)(depot.environment | {"DEPOT_TOKEN": user.token}, depot.directory)

    return make


def test_changes_by_status_author_branch_and_path(depot, project: str, work: Path, member) -> None:
    _, other = member("contributor")
    (work / "b").write_bytes(b"3")
    depot.json("submit", work, "-m", "second")
    undone = other.json("undo", "2", "-p", project)
    depot.json("branch", "create", "dev", "-p", project)

    def found(*arguments: str) -> list[int | None]:
        changelists = depot.json("changes", "-p", project, *arguments)["changelists"]
        return [one["number"] for one in changelists]

    assert found() == [None, 2, 1]
    assert found("--mine") == [2, 1]
    assert found("--status", "open") == [None]
    assert found("--status", "submitted", "--limit", "1") == [2]
    assert found("--path", "Content/a") == [1]
    assert found("--path", "B", "--mine", "--branch", "dev") == [2, 1]
    assert found("--branch", "dev") == []
    other.json("abandon", undone["id"])
    assert found() == [2, 1]
    assert found("--status", "abandoned") == [None]
    told = depot("changes", "-p", project).stdout.splitlines()
    assert told[0].split() == ["CHANGELIST", "STATUS", "WHEN", "WHO", "BRANCH", "ITEMS", "WHAT"]
    assert [line.split()[0] for line in told[1:]] == ["2", "1"]
    assert told[2].split()[-4:] == ["admin", "main", "2", "first"]
    assert depot("changes", "-p", project, "--path", "b", "--status", "open").returncode == 2
    assert depot("changes", "-p", project, "--branch", "dev").stdout == "No changelists.\n"


def test_describe_by_number_and_id(depot, project: str, work: Path) -> None:
    described = depot.json("describe", "1", "-p", project)
    assert [(one["path"], one["action"]) for one in described["items"]] == [("b", "add"), ("Content/a", "add")]
    assert depot.json("describe", described["changelist"]["id"]) == described
    depot.json("review", "comment", "1", "-p", project, "--path", "b", "-m", "Why?")
    told = depot("describe", "1", "-p", project).stdout
    assert told.startswith("Changelist 1 by admin on main\nsubmitted, ")
    assert "\n    first\n    in two lines\n" in told
    assert "  add        b\n" in told
    assert "admin on b, " in told
    assert "Why?" in told


@pytest.mark.parametrize(
    ("changelist", "exit_code", "why"),
    [
        ("99", 1, "no submitted changelist 99"),
        ("0", 1, "greater than or equal to 1"),
        ("nonsense", 2, "neither the number nor the id"),
        ("0198c6a2-7c1e-7d7e-a4b8-0242ac120002", 1, "no changelist"),
    ],
)
def test_a_changelist_that_is_not_there(depot, project: str, changelist: str, exit_code: int, why: str) -> None:
    done = depot("describe", changelist, "-p", project)
    assert done.returncode == exit_code
    assert why in done.stderr


def test_undo_makes_a_changelist_that_submits_the_old_content(depot, project: str, work: Path) -> None:
    (work / "b").write_bytes(b"3")
    (work / "Content/a").unlink()
    depot.json("submit", work, "-m", "second")
    done = depot("undo", "2", "-p", project)
    assert done.returncode == 0
    submit = done.stdout.splitlines()[-1].removeprefix("To do it: depot ").split()
    assert submit[:2] == ["submit", "--changelist"]
    assert depot.json(*submit)["number"] == 3
    assert depot.json(*submit)["number"] == 3
    depot.json("sync", work)
    assert ((work / "b").read_bytes(), (work / "Content/a").read_bytes()) == (b"2", b"1")
    assert depot.json("undo", "2", "-p", project, "-m", "again", exit_code=1)["error"]["status"] == 409


def test_a_change_goes_through_a_review(depot, project: str, work: Path, member) -> None:
    name, reviewer = member("reviewer")
    depot.json("branch", "protect", "main", "--review", "-p", project)
    (work / "b").write_bytes(b"3")
    (work / "later").write_bytes(b"4")
    depot.json("edit", work / "b")
    refused = depot("submit", work, "--opened", "-m", "second")
    assert (refused.returncode, "depot submit --review" in refused.stderr) == (1, True)
    asked = depot.json("submit", work, "--opened", "-m", "second", "--reviewer", name)
    changelist = asked["changelist_id"]
    assert (asked["awaits_review"], asked["number"], asked["edited"], asked["added"]) == (True, None, 1, 0)
    assert [one["changelist_id"] for one in reviewer.json("review", "pending")["reviews"]] == [changelist]
    assert changelist in reviewer("review", "pending").stdout
    assert depot("submit", "--changelist", changelist).returncode == 1
    assert reviewer.json("review", "reject", changelist, "-m", "Not yet")["verdict"] == "changes_requested"
    assert depot("submit", "--changelist", changelist).returncode == 1
    told = depot("describe", changelist).stdout
    assert "pending_review, " in told
    assert f"Review by {name}: changes_requested: Not yet" in told
    revision = depot.json("describe", changelist)["changelist"]["revision"]
    assert f", revision {revision}\n" in told
    stale = reviewer("review", "approve", changelist, "--revision", str(revision - 1))
    assert (stale.returncode, "depot describe" in stale.stderr) == (1, True)
    done = reviewer("review", "approve", changelist, "--revision", str(revision))
    assert done.stdout == f"Approved changelist {changelist}.\n"
    assert reviewer("review", "pending").stdout == "No review waits for you.\n"
    assert depot("submit", "--changelist", changelist).stdout.startswith("Submitted changelist 2 with 1 item")
    depot.json("sync", work)
    assert [one["path"] for one in depot.json("revert", "-a", work)["reverted"]] == ["b"]
    status = depot.json("status", work)
    assert (status["at"], [one["path"] for one in status["changed_here"]]) == (2, ["later"])


def test_a_review_is_asked_for_later(depot, project: str, work: Path, member) -> None:
    name, reviewer = member("reviewer")
    made = depot.json("undo", "1", "-p", project)
    assert depot.json("review", "request", made["id"], "-r", name)["status"] == "pending_review"
    assert len(reviewer.json("review", "pending")["reviews"]) == 1
    assert depot("review", "approve", made["id"]).returncode == 1
    assert depot("review", "request", made["id"], "-r", "nobody-of-this-name").returncode == 1
    assert depot.json("abandon", made["id"]) == {"abandoned": made["id"]}
    assert depot("abandon", made["id"]).returncode == 1


def test_an_unknown_reviewer_leaves_no_changelist(depot, project: str, work: Path) -> None:
    (work / "b").write_bytes(b"3")
    assert depot("submit", work, "-m", "m", "--reviewer", "nobody-of-this-name").returncode == 1
    assert depot.json("changes", "-p", project, "--status", "pending_review")["changelists"] == []
    assert depot.json("changes", "-p", project, "--status", "open")["changelists"] == []
    assert depot.json("submit", work, "-m", "m")["number"] == 2


def test_a_changelist_is_submitted_alone(depot, work: Path) -> None:
    some_id = "0198c6a2-7c1e-7d7e-a4b8-0242ac120002"
    assert depot("submit", work, "--changelist", some_id).returncode == 2
    assert depot("submit", "--changelist", some_id, "--opened").returncode == 2
    assert depot("submit", work).returncode == 2
    assert depot("submit", "--changelist", some_id).returncode == 1
