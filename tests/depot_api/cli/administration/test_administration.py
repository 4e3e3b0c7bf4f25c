"""What an admin of a studio does: archives, members, rules, webhooks, obliterations."""

import json
from pathlib import Path
from uuid import uuid4

import pytest


@pytest.fixture
def of(project: str) -> tuple[str, str]:
    return ("--project", project)


def test_a_project_is_archived_and_comes_back(depot, project: str) -> None:
    kept = depot.json("project", "archive", project, "--reason", "Shipped")
    assert (kept["reason"], kept["branches"]) == ("Shipped", 1)
    assert depot("project", "archive", project, "--reason", "again").returncode == 1
    assert depot.json("project", "unarchive", project)["status"] == "active"


def test_members_are_given_roles_and_taken_out(depot, api, of) -> None:
    ada, ben = api.user().name, api.user().name
    roles = ("--set", f"{ada}=lead", "--set", f"{ben}=viewer")
    found = depot.json("project", "members", *of, *roles)["members"]
    assert {ada: "lead", ben: "viewer"}.items() <= {one["username"]: one["role"] for one in found}.items()
    left = depot("project", "members", *of, "--remove", ben.upper()).stdout
    assert (ada in left, ben in left) == (True, False)
    for wrong in (("--set", "ada"), ("--set", "ada=king"), ("--remove", "nobody")):
        assert depot("project", "members", *of, *wrong).returncode == 2


def test_rules_are_shown_and_replaced(depot, api, of, tmp_path: Path) -> None:
    ada = api.user().name
    depot.json("project", "members", *of, "--set", f"{ada}=contributor")
    rules = [
        {"pattern": "Secret/**", "access": "none", "username": None, "role": "contributor"},
        {"pattern": "Secret/Plans/**", "access": "read", "username": ada, "role": None},
    ]
    file = tmp_path / "rules.json"
    file.write_text(json.dumps({"rules": rules}))
    assert depot.json("project", "permissions", *of, "--from", file)["rules"] == rules
    assert ada in depot("project", "permissions", *of).stdout
    file.write_text(json.dumps({"rules": [{"pattern": "*.uasset", "exclusive": True}]}))
    assert depot.json("project", "typemap", *of, "--from", file)["rules"][0]["scope"] == "project"
    written = depot("project", "typemap", *of, "--json").stdout
    emptied = depot("project", "typemap", *of, "--from", "-", stdin='{"rules": []}')
    assert (emptied.stdout, depot("project", "typemap", *of, "--from", "-", stdin=written).returncode) == (
        "No rules.\n",
        0,
    )
    assert "exclusive" in depot("project", "typemap", *of).stdout
    for wrong in ("[]", "{", '{"rules": [{}]}'):
        assert depot("project", "typemap", *of, "--from", "-", stdin=wrong).returncode == 2
    assert depot("project", "typemap", *of, "--from", tmp_path / "nothing").returncode == 2


def test_webhooks(depot, of) -> None:
    made = depot("webhook", "create", "https://example.com/depot", "--kind", "label.set", *of)
    assert made.stdout.startswith("whsec_")
    (webhook,) = depot.json("webhook", "list", *of)["webhooks"]
    assert (webhook["url"], webhook["kinds"]) == ("https://example.com/depot", ["label.set"])
    assert depot("webhook", "deliveries", webhook["id"], "--status", "dead", *of).stdout == "No deliveries.\n"
    assert depot("webhook", "replay", webhook["id"], str(uuid4()), *of).returncode == 1
    assert depot.json("webhook", "delete", webhook["id"], *of) == {"deleted": webhook["id"]}
    assert depot("webhook", "list", *of).stdout == "No webhooks.\n"


def test_obliterations_are_shown_before_they_are_done(depot, of, tree) -> None:
    root = tree("work", {"key": b"a private key"})
    depot.json("submit", root, *of, "-m", "by mistake")
    (root / "key").write_bytes(b"nothing")
    depot.json("submit", root, "-m", "replaced")
    asked = ("obliterate", "key", "--reason", "A key", "--version", "1", *of)
    assert "With --yes it is done" in depot(*asked).stdout
    assert depot.json("obliterations", *of)["obliterations"] == []
    made = depot.json(*asked, "--yes")["obliteration_id"]
    (listed,) = depot.json("obliterations", *of)["obliterations"]
    assert (listed["id"], listed["status"], listed["versions"]) == (made, "requested", 1)
    early = depot("obliterations", "--complete", made)
    assert (early.returncode, "time of grace" in early.stderr) == (1, True)
    assert depot.json("obliterations", "--cancel", made)["obliterations"][0]["status"] == "cancelled"
    assert depot("obliterate", "*.key", "--reason", "r", "--version", "1", *of).returncode == 2
