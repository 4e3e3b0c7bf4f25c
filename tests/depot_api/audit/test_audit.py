"""The audit log: who, what, before, after and the request; for managers."""

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
