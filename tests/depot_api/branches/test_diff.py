"""Diff: what changes from one branch or point to another."""

import json
from typing import Any

import pytest


def pages(project, branch: str, **query: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    while True:
        response = project.http.get(f"/branches/{branch}/diff", params=query)
        assert response.status_code == 200, response.text
        rows += response.json()["items"]
        if response.json()["next_cursor"] is None:
            return rows
        query["cursor"] = response.json()["next_cursor"]


@pytest.fixture
def dev(project):
    """A branch whose parent has a, b and c, and where b is edited, c deleted and d added."""
    for name in "abc":
        project.add(name, name.encode())
    branch: str = project.http.post("/branches", json={"project_id": project.id, "name": "dev"}).json()["id"]
    changes = [
        {"action": "edit", "path": "b", "base_version": 1, "sha256": project.put(b"dev")},
        {"action": "delete", "path": "c", "base_version": 1},
        {"action": "add", "path": "d", "sha256": project.put(b"d")},
    ]
    project.submit(changes, branch)
    return branch


def test_rows_say_what_changes_from_left_to_right(project, dev):
    added, changed, removed = "added", "changed", "removed"
    rows = pages(project, dev, against=project.main)
    assert [(row["path"], row["change"]) for row in rows] == [("b", changed), ("c", removed), ("d", added)]
    assert rows[0]["left"] == {"version": 1, "sha256": project.put(b"b"), "size_bytes": 1}
    assert rows[0]["right"] == {"version": 2, "sha256": project.put(b"dev"), "size_bytes": 3}
    assert (rows[1]["right"], rows[2]["left"]) == (None, None)
    back = pages(project, project.main, against=dev)
    assert [(row["path"], row["change"]) for row in back] == [("b", changed), ("c", added), ("d", removed)]


def test_equal_content_is_no_difference(project, dev):
    project.submit([{"action": "edit", "path": "b", "base_version": 1, "sha256": project.put(b"dev")}])
    assert [row["path"] for row in pages(project, dev, against=project.main)] == ["c", "d"]


def test_two_points_of_one_branch(project, dev):
    assert [row["path"] for row in pages(project, project.main, **{"from": 1, "to": 2})] == ["b"]
    assert [row["change"] for row in pages(project, project.main, **{"from": 3, "to": 1})] == ["removed", "removed"]
    assert pages(project, project.main, **{"from": 3}) == []


def test_pages_are_of_two_moments(project, dev):
    first = project.http.get(f"/branches/{dev}/diff", params={"against": project.main, "limit": 1}).json()
    project.add("z", b"z", dev)
    query = {"against": project.main, "limit": 1, "cursor": first["next_cursor"]}
    assert [row["path"] for row in pages(project, dev, **query)] == ["c", "d"]
    assert first["right"] == {"branch_id": dev, "at": 4}


def test_the_stream_and_the_pages_agree(project, dev):
    accept = {"Accept": "application/x-ndjson"}
    response = project.http.get(f"/branches/{dev}/diff", params={"against": project.main}, headers=accept)
    points, *rows, last = [json.loads(line) for line in response.text.splitlines()]
    assert points == {"left": {"branch_id": project.main, "at": 3}, "right": {"branch_id": dev, "at": 4}}
    assert rows == pages(project, dev, against=project.main, limit=2)
    assert last == {"rows": 3}


def test_what_cannot_be_compared(project, dev, new_project):
    get = project.http.get
    assert get(f"/branches/{dev}/diff").status_code == 422
    assert get(f"/branches/{dev}/diff", params={"against": new_project().main}).status_code == 404
    assert get(f"/branches/{dev}/diff", params={"from": 1, "cursor": "WzFd"}).status_code == 422
    assert get(f"/branches/{dev}/diff", params={"from": 2**63}).status_code == 422
    assert project.api.user().http.get(f"/branches/{dev}/diff", params={"from": 1}).status_code == 404
