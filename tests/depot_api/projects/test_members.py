"""Members: nobody hands out more than they have, and a project keeps an owner."""

import psycopg
import pytest
from psycopg import errors


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


def test_the_database_lets_nobody_hand_out_or_touch_a_role_above_their_own(api, project):
    manager, owner, viewer = project.member("manager"), project.member("owner"), project.member("viewer")
    stranger = api.user()
    for statement, user in (
        ("UPDATE project_members SET role = 'owner' WHERE project_id = %s AND user_id = %s", manager),
        ("UPDATE project_members SET role = 'viewer' WHERE project_id = %s AND user_id = %s", owner),
        ("DELETE FROM project_members WHERE project_id = %s AND user_id = %s", owner),
        ("INSERT INTO project_members (project_id, user_id, role) VALUES (%s, %s, 'owner')", stranger),
    ):
        with psycopg.connect(api.service_url) as connection:
            connection.execute("SELECT set_app_user(%s)", (manager.id,))
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(statement, (project.id, user.id))
    with psycopg.connect(api.service_url) as connection:
        connection.execute("SELECT set_app_user(%s)", (manager.id,))
        raised = connection.execute(
            "UPDATE project_members SET role = 'manager' WHERE project_id = %s AND user_id = %s",
            (project.id, viewer.id),
        )
        assert raised.rowcount == 1
