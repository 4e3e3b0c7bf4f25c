"""The audit log: who, what, before, after and the request; for managers, and of accounts for admins."""

import secrets

import psycopg
import pytest


def test_a_change_is_there_with_its_request(project):
    headers = {"X-Request-ID": f"request-{project.name}"}
    body = {"project_id": project.id, "name": "release/1"}
    branch = project.http.post("/branches", json=body, headers=headers).json()
    newest = project.http.get(f"/projects/{project.id}/audit", params={"limit": 1}).json()["items"][0]
    assert (newest["table_name"], newest["operation"], newest["request_id"]) == (
        "branches",
        "INSERT",
        headers["X-Request-ID"],
    )
    assert newest["before"] is None
    assert (newest["after"]["id"], newest["after"]["created_by"]) == (branch["id"], newest["actor_id"])


def test_pages_hold_every_row_once(project):
    for role in ("viewer", "lead", "contributor"):
        project.member(role)
    url = f"/projects/{project.id}/audit"
    everything = project.http.get(url).json()["items"]
    paged, query = [], {"limit": 2}
    while True:
        page = project.http.get(url, params=query).json()
        paged += page["items"]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert paged == everything
    assert [row["id"] for row in paged] == sorted((row["id"] for row in paged), reverse=True)


@pytest.mark.parametrize(
    ("role", "status"),
    [("viewer", 403), ("reviewer", 403), ("contributor", 403), ("lead", 403), ("manager", 200), ("owner", 200)],
)
def test_roles(project, role, status):
    assert project.member(role).http.get(f"/projects/{project.id}/audit").status_code == status


def newest(project, count=1):
    rows = project.http.get(f"/projects/{project.id}/audit", params={"limit": count}).json()["items"]
    return [(row["table_name"], row["operation"]) for row in rows], rows


def test_items_leave_one_row_for_each_statement(project):
    sha256, url = project.put(b"a"), f"/changelists/{project.open([])}"
    many = [{"action": "add", "path": f"a{number:03}", "sha256": sha256} for number in range(150)]
    project.http.post(f"{url}/items", json={"items": many})
    changes, rows = newest(project, 2)
    assert changes == [("changelists", "UPDATE"), ("changelist_items", "INSERT")]
    after = rows[1]["after"]
    assert (rows[1]["before"], after["rows"], len(after["first"])) == (None, 150, 100)
    assert (after["first"][0]["path"], after["first"][0]["sha256"]) == ("a000", f"\\x{sha256}")
    other = project.put(b"b")
    project.http.post(f"{url}/items", json={"items": [many[7] | {"sha256": other}]})
    changes, rows = newest(project, 2)
    assert changes == [("changelists", "UPDATE"), ("changelist_items", "UPDATE")]
    sides = [rows[1][side]["first"][0]["sha256"] for side in ("before", "after")]
    assert sides == [f"\\x{sha256}", f"\\x{other}"]
    project.http.post(f"{url}/items/revert", json={"paths": ["a000", "a001"]})
    changes, rows = newest(project, 2)
    assert (changes[1], rows[1]["before"]["rows"]) == (("changelist_items", "DELETE"), 2)


def test_a_submit_leaves_no_row_for_each_of_its_items(project):
    sha256 = project.put(b"a")
    project.submit([{"action": "add", "path": f"a{number}", "sha256": sha256} for number in range(10)])
    items = project.http.get(f"/projects/{project.id}/audit").json()["items"]
    many = [(row["table_name"], row["after"]["rows"]) for row in items if "rows" in (row["after"] or {})]
    assert many == [("assets", 10), ("changelist_items", 10)]
    assert len(items) < 15


def test_a_verdict_of_a_pipeline_is_there(api, project):
    changelist = project.open([{"action": "delete", "path": "a", "base_version": 1}])
    pipeline = project.member("contributor")
    with psycopg.connect(api.service_url) as service:
        service.execute("SELECT set_app_user(%s, 'a run', 'pipeline')", (pipeline.id,))
        service.execute("UPDATE changelist_items SET validation = 'passed' WHERE changelist_id = %s", (changelist,))
    _, (row,) = newest(project)
    assert (row["table_name"], row["operation"], row["actor_id"], row["request_id"]) == (
        "changelist_items",
        "UPDATE",
        pipeline.id,
        "a run",
    )
    assert [row[side]["first"][0]["validation"] for side in ("before", "after")] == ["pending", "passed"]


def test_a_shelf_is_there_with_its_items(project):
    items = [{"action": "delete", "path": "a", "base_version": 1}]
    body = {"project_id": project.id, "branch_id": project.main, "items": items}
    shelf = project.http.post("/shelves", json=body).json()["id"]
    assert ("shelf_items", "INSERT") in newest(project, 3)[0]
    project.http.delete(f"/shelves/{shelf}")
    assert sorted(newest(project, 2)[0]) == [("shelf_items", "DELETE"), ("shelves", "DELETE")]


def test_accounts_and_tokens_are_for_admins(api):
    user, headers = api.user(), {"X-Request-ID": secrets.token_hex(8)}
    with api.client() as admin:
        admin.patch(f"/users/{user.id}", json={"studio_role": "editor"}, headers=headers)
        (row,) = [one for one in admin.get("/audit").json()["items"] if one["request_id"] == headers["X-Request-ID"]]
        assert (row["table_name"], row["before"]["studio_role"], row["after"]["studio_role"]) == (
            "users",
            "viewer",
            "editor",
        )
        tables = {one["table_name"] for one in admin.get("/audit").json()["items"]}
        assert tables == {"users", "api_tokens"}
        first = admin.get("/audit", params={"limit": 1}).json()
        second = admin.get("/audit", params={"limit": 1, "cursor": first["next_cursor"]}).json()
        assert second["items"][0]["id"] < first["items"][0]["id"]
    assert user.http.get("/audit").status_code == 403
