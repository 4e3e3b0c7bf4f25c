import pytest


@pytest.fixture
def stocked(depot, project: str, tree) -> str:
    """The project, with two files on main as changelist 1."""
    root = tree("one", {"Hero/hero.uasset": b"hero", "readme.txt": b"r"})
    depot.json("submit", root, "--project", project, "-m", "First")
    return project


def test_tagged_is_found(depot, stocked: str) -> None:
    tagged = depot.json("tag", "hero/HERO.uasset", "cast", "main", "--project", stocked)
    assert tagged["tags"] == ["cast", "main"]
    query = ["search", "hero", "--tag", "cast", "--tag", "main", "--since", "2020-01-01", "--project", stocked]
    assert [one["path"] for one in depot.json(*query)["assets"]] == ["Hero/hero.uasset"]
    assert "Hero/hero.uasset  #1       4 B" in depot(*query).stdout
    depot("tag", "Hero/hero.uasset", "cast", "--remove", "--project", stocked)
    assert depot(*query).stdout == "Nothing found.\n"
    assert depot("tag", "Hero/her", "x", "--project", stocked).returncode == 1


@pytest.mark.parametrize(("text", "why"), [("{", "not JSON"), ("[]", "takes an object")])
def test_metadata_that_is_no_object_is_wrong_usage(depot, stocked: str, text: str, why: str) -> None:
    done = depot("search", "--metadata", text, "--project", stocked)
    assert done.returncode == 2
    assert why in done.stderr


def test_labels(depot, stocked: str) -> None:
    assert depot("label", "list", "--project", stocked).stdout == "No labels.\n"
    assert depot("label", "set", "rc-1", "--project", stocked).stdout == "rc-1 is main@1.\n"
    assert depot.json("label", "set", "rc-1", "--at", "0", "--project", stocked)["at"] == 0
    assert "main@0" in depot("label", "list", "--project", stocked).stdout
    assert [one["name"] for one in depot.json("label", "list", "--project", stocked)["labels"]] == ["rc-1"]
    assert depot("label", "set", "12", "--project", stocked).returncode == 1
    assert depot.json("label", "delete", "rc-1", "--project", stocked) == {"deleted": "rc-1"}
    assert depot("label", "delete", "rc-1", "--project", stocked).returncode == 1


def test_diff_of_branches_and_points(depot, stocked: str, tree) -> None:
    depot.json("label", "set", "rc-1", "--project", stocked)
    depot.json("branch", "create", "dev", "--project", stocked)
    changed = tree("two", {"readme.txt": b"changed", "new.txt": b"n"})
    depot.json("submit", changed, "--delete", "--project", stocked, "--branch", "dev", "-m", "Second")
    done = depot("diff", "main", "dev", "--project", stocked)
    wanted = ["- Hero/hero.uasset", "+ new.txt", "~ readme.txt", "3 differences from main to dev."]
    assert done.stdout.splitlines() == wanted
    document = depot.json("diff", "main@0", "main@rc-1", "--project", stocked)
    assert [(row["path"], row["change"]) for row in document["differences"]] == [
        ("Hero/hero.uasset", "added"),
        ("readme.txt", "added"),
    ]
    assert depot("diff", "main@1", "main@nope", "--project", stocked).returncode == 1


def test_protect(depot, stocked: str) -> None:
    branch = depot.json("branch", "protect", "main", "--submit-role", "lead", "--review", "--project", stocked)
    assert (branch["submit_role"], branch["require_review"], branch["require_validation"]) == ("lead", True, False)
    done = depot("branch", "protect", "main", "--no-review", "--project", stocked)
    assert done.stdout == "Submitting to main takes the role lead, no approval and no validation.\n"
    assert depot("branch", "protect", "main", "--project", stocked).returncode == 2
