"""Workspaces: whose they are, what they take, and that bad input is told."""

import json

import httpx
import psycopg
import pytest
from psycopg import errors


def problem(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["type"].removeprefix("urn:asset-depot:problem:")


def test_create_update_list_delete(project, new_workspace):
    work = new_workspace(name="art", include=["Content/**"])
    document = project.http.get(f"/workspaces/{work.id}").json()
    assert (document["name"], document["include"], document["exclude"]) == ("art", ["Content/**"], [])
    assert (document["at_no"], document["is_complete"]) == (0, True)
    changed = project.http.patch(f"/workspaces/{work.id}", json={"exclude": ["*.psd"]}).json()
    assert (changed["include"], changed["exclude"], changed["is_complete"]) == (["Content/**"], ["*.psd"], False)
    new_workspace(name="code")
    page = project.http.get(f"/projects/{project.id}/workspaces", params={"limit": 1}).json()
    assert [one["name"] for one in page["items"]] == ["art"]
    rest = {"limit": 1, "cursor": page["next_cursor"]}
    assert [one["name"] for one in project.http.get(f"/projects/{project.id}/workspaces", params=rest).json()["items"]]
    assert project.http.delete(f"/workspaces/{work.id}").status_code == 204
    assert problem(project.http.get(f"/workspaces/{work.id}")) == (404, "not-found")


def test_a_name_is_taken_once(project, new_workspace):
    new_workspace(name="art")
    document = {"project_id": project.id, "branch_id": project.main, "name": "art"}
    assert problem(project.http.post("/workspaces", json=document)) == (409, "already-exists")
    new_workspace(project.member("viewer").http, name="art")


def test_the_same_key_makes_one_workspace(project):
    document = {"project_id": project.id, "branch_id": project.main, "name": "art"}
    key = {"Idempotency-Key": f"workspace-{project.id}"}
    first, second = [project.http.post("/workspaces", json=document, headers=key) for _ in range(2)]
    assert (first.status_code, first.text) == (201, second.text)


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"name": "a\u0000"},
        {"include": ["/a"]},
        {"include": ["a**"]},
        {"exclude": ["a"] * 201},
        {"exclude": ["\u0000"]},
        {"at": 1},
    ],
)
def test_what_is_no_workspace(project, change):
    document = {"project_id": project.id, "branch_id": project.main, "name": "mine", **change}
    response = project.http.post("/workspaces", json=document)
    assert problem(response) == (422, "invalid")
    assert next(iter(change)) in response.json()["errors"][0]["pointer"]


def test_a_branch_of_another_project(project, new_project, new_workspace):
    other = new_project()
    document = {"project_id": project.id, "branch_id": other.main, "name": "mine"}
    assert problem(project.http.post("/workspaces", json=document)) == (404, "not-found")
    work = new_workspace()
    assert problem(project.http.patch(f"/workspaces/{work.id}", json={"branch_id": other.main})) == (404, "not-found")


def test_a_workspace_is_nobody_elses(api, project, new_workspace):
    """Not an owner's of the project, nor a studio admin's."""
    project.add("a", b"a")
    member = project.member("contributor")
    work = new_workspace(member.http)
    work.sync()
    for method, path, body in (
        ("GET", "", None),
        ("PATCH", "", {"exclude": ["a"]}),
        ("DELETE", "", None),
        ("GET", "/files", None),
        ("GET", "/activity", None),
        ("POST", "/sync", {}),
        ("POST", "/synced", {"at": 0, "files": []}),
    ):
        response = project.http.request(method, f"/workspaces/{work.id}{path}", json=body)
        assert problem(response) == (404, "not-found"), path
    assert project.http.get(f"/projects/{project.id}/workspaces").json()["items"] == []
    admin = project.http.get("/auth/me").json()["id"]
    with psycopg.connect(api.service_url) as connection:
        connection.execute("SELECT set_app_user(%s)", (admin,))
        assert connection.execute("SELECT FROM workspace_files WHERE workspace_id = %s", (work.id,)).rowcount == 0
        assert connection.execute("DELETE FROM workspaces WHERE id = %s", (work.id,)).rowcount == 0


def test_an_archived_project_refuses_writes_and_answers_reads(api, project, new_workspace):
    project.add("a", b"a")
    work = new_workspace()
    with psycopg.connect(api.owner_url) as owner:
        owner.execute("UPDATE projects SET status = 'archived' WHERE id = %s", (project.id,))
    assert [row["path"] for row in work.plan()[1]] == ["a"]
    for response in (
        project.http.post(f"/workspaces/{work.id}/synced", json={"at": 1, "files": []}),
        project.http.post(f"/workspaces/{work.id}/sync", json={"have": [{"path": "a", "version": None}]}),
        project.http.delete(f"/workspaces/{work.id}"),
    ):
        assert problem(response) == (409, "project-archived")


def test_the_feed(project, new_workspace):
    project.add("a", b"a")
    branch = project.http.post("/branches", json={"project_id": project.id, "name": "other"}).json()["id"]
    member = project.member("viewer")
    work = new_workspace(member.http, name="art")
    work.sync()
    member.http.patch(f"/workspaces/{work.id}", json={"branch_id": branch, "exclude": ["a"]})
    work.sync()
    of_one = member.http.get(f"/workspaces/{work.id}/activity").json()["items"]
    member.http.delete(f"/workspaces/{work.id}")
    feed = project.http.get(f"/projects/{project.id}/activity").json()["items"]
    assert [one["kind"] for one in feed] == ["deleted", "synced", "mapped", "switched", "synced", "created"]
    assert feed[1:] == of_one
    assert [(one["updated_files"], one["removed_files"]) for one in feed if one["kind"] == "synced"] == [(0, 1), (1, 0)]
    assert {(one["username"], one["workspace_name"]) for one in feed} == {(member.name, "art")}
    page = project.http.get(f"/projects/{project.id}/activity", params={"limit": 4}).json()
    rest = project.http.get(f"/projects/{project.id}/activity", params={"cursor": page["next_cursor"]}).json()
    assert page["items"] + rest["items"] == feed


def test_the_feed_is_append_only_and_in_ones_own_name(api, project, new_workspace):
    new_workspace()
    member = project.member("owner")
    with psycopg.connect(api.service_url) as connection:
        connection.execute("SELECT set_app_user(%s)", (member.id,))
        for statement in ("DELETE FROM workspace_activity", "UPDATE workspace_activity SET at_no = 0"):
            with pytest.raises(errors.InsufficientPrivilege), connection.transaction():
                connection.execute(statement)
        forged = """INSERT INTO workspace_activity (project_id, workspace_id, workspace_name, user_id, kind, branch_id,
                        at_no) SELECT project_id, workspace_id, workspace_name, user_id, 'deleted', branch_id, 0
                    FROM workspace_activity"""
        with pytest.raises(errors.InsufficientPrivilege), connection.transaction():
            connection.execute(forged)
    with psycopg.connect(api.owner_url) as owner, pytest.raises(errors.RestrictViolation):
        owner.execute("TRUNCATE workspace_activity")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("sync", {"at": -1}),
        ("sync", {"at": 2**63}),
        ("sync", {"at": "1"}),
        ("sync", {"at": 1, "label": "x"}),
        ("sync", {"label": "\u0000"}),
        ("sync", {"have": [{"path": "a", "version": 0}]}),
        ("sync", {"have": [{"path": "nowhere", "version": 1}]}),
        ("sync", {"have": [{"path": "a", "version": 2**31}]}),
        ("synced", {"at": 1}),
        ("synced", {"at": 0, "files": [{"path": "a", "version": None}, {"path": "A", "version": None}]}),
        ("synced", {"at": 0, "files": [{"path": "\ud800", "version": None}]}),
        ("synced", {"at": 0, "files": [{"path": "a", "version": None}] * 10_001}),
    ],
)
def test_bad_input_is_told(project, new_workspace, path, body):
    response = project.http.post(
        f"/workspaces/{new_workspace().id}/{path}",
        content=json.dumps(body),
        headers={"Content-Type": "application/json"},
    )
    assert problem(response) == (422, "invalid")


@pytest.mark.parametrize("cursor", ["x", "WyJub3QgYSB1dWlkIl0"])
def test_bad_cursors_are_told(project, new_workspace, cursor):
    path = f"/workspaces/{new_workspace().id}/activity"
    assert problem(project.http.get(path, params={"cursor": cursor})) == (422, "invalid")
