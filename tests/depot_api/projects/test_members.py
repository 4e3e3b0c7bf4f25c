"""Members: nobody hands out more than they have, and a project keeps an owner."""

import pytest


def test_a_project_has_main_and_its_creator_as_owner(project):
    got = project.http.get(f"/projects/{project.id}").json()
    assert (got["my_role"], got["status"]) == ("owner", "active")
    assert [branch["name"] for branch in project.http.get(f"/projects/{project.id}/branches").json()["items"]] == [
        "main"
    ]
    taken = project.http.post("/projects", json={"name": project.name.upper()})
    assert taken.status_code == 409


def test_only_editors_and_admins_create_projects(api):
    assert api.user("viewer").http.post("/projects", json={"name": "mine"}).status_code == 403
    editor = api.user("editor")
    made = editor.http.post("/projects", json={"name": f"of {editor.name}"})
    assert (made.status_code, made.json()["my_role"]) == (201, "owner")


@pytest.mark.parametrize(
    ("role", "given", "status"),
    [("manager", "owner", 403), ("manager", "manager", 200), ("lead", "viewer", 403), ("owner", "owner", 200)],
)
def test_nobody_gives_more_than_they_have(project, role, given, status):
    giver, other = project.member(role), project.api.user()
    wanted = {"username": other.name, "role": given}
    assert giver.http.post(f"/projects/{project.id}/members", json=wanted).status_code == status


def test_the_last_owner_stays(project):
    wanted = {"username": "admin", "role": "viewer"}
    assert project.http.post(f"/projects/{project.id}/members", json=wanted).status_code == 409
    assert project.member("manager").http.post(f"/projects/{project.id}/members", json=wanted).status_code == 403
    project.member("owner")
    assert project.http.post(f"/projects/{project.id}/members", json=wanted).status_code == 200
