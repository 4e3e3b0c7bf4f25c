"""Labels name a branch as of a changelist, and are accepted wherever a changelist is."""

import psycopg
import pytest


@pytest.fixture
def labels(project):
    """Where the project's labels are; it has three changelists."""
    for name in "abc":
        project.add(name, name.encode())
    return f"/projects/{project.id}/labels"


def test_a_label_is_made_and_moved(project, labels):
    made = project.http.put(f"{labels}/beta", json={"branch_id": project.main, "at": 1})
    assert (made.status_code, made.json()["at"]) == (201, 1)
    moved = project.http.put(f"{labels}/BETA", json={"branch_id": project.main})
    assert (moved.status_code, moved.json()["at"], moved.json()["name"]) == (200, 3, "beta")
    assert project.http.get(f"{labels}/Beta").json() == moved.json()


def test_moving_and_deleting_is_audited_and_told(api, project, labels):
    for at in (1, 2):
        project.http.put(f"{labels}/beta", json={"branch_id": project.main, "at": at})
    assert project.http.delete(f"{labels}/beta").status_code == 204
    assert project.http.delete(f"{labels}/beta").status_code == 404
    with psycopg.connect(api.owner_url) as owner:
        audited = owner.execute(
            """SELECT operation, (before ->> 'at_no')::int, (after ->> 'at_no')::int FROM audit_log
               WHERE table_name = 'labels' AND project_id = %s ORDER BY id""",
            (project.id,),
        ).fetchall()
        told = owner.execute(
            "SELECT kind FROM events WHERE project_id = %s AND kind LIKE 'label.%%' ORDER BY id", (project.id,)
        ).fetchall()
    assert audited == [("INSERT", None, 1), ("UPDATE", 1, 2), ("DELETE", 2, None)]
    assert [kind for (kind,) in told] == ["label.set", "label.set", "label.deleted"]


def test_a_label_stands_where_a_changelist_does(project, labels):
    project.http.put(f"{labels}/beta", json={"branch_id": project.main, "at": 2})
    manifest = project.http.get(f"/branches/{project.main}/manifest", params={"label": "Beta"}).json()
    assert (manifest["at"], [row["path"] for row in manifest["items"]]) == (2, ["a", "b"])
    history = project.http.get(f"/branches/{project.main}/history", params={"label": "beta"}).json()
    assert [row["number"] for row in history["items"]] == [2, 1]
    diff = project.http.get(f"/branches/{project.main}/diff", params={"from_label": "beta"}).json()
    assert [(row["path"], row["change"]) for row in diff["items"]] == [("c", "added")]
    wanted = {"project_id": project.id, "name": "from-beta", "parent_label": "beta"}
    assert project.http.post("/branches", json=wanted).json()["parent_at"] == 2


def test_a_label_that_does_not_fit_is_refused(project, labels):
    project.http.put(f"{labels}/beta", json={"branch_id": project.main, "at": 2})
    dev = project.http.post("/branches", json={"project_id": project.id, "name": "dev"}).json()["id"]
    manifest = f"/branches/{project.main}/manifest"
    assert project.http.get(manifest, params={"label": "beta", "at": 1}).status_code == 422
    assert project.http.get(f"/branches/{dev}/manifest", params={"label": "beta"}).status_code == 422
    assert project.http.get(manifest, params={"label": "gamma"}).status_code == 404
    assert project.http.get(manifest, params={"label": "no/slash"}).status_code == 422


@pytest.mark.parametrize("name", ["12", ".", "-x", "a b", "%00", "x" * 201])
def test_a_name_that_could_be_mistaken_is_refused(project, labels, name):
    response = project.http.put(f"{labels}/{name}", json={"branch_id": project.main})
    assert response.status_code in (405, 422)  # `/.` is taken for the list


@pytest.mark.parametrize("at", [4, -1, 2**63, True, "1"])
def test_a_point_that_is_not_there_is_refused(project, labels, at):
    response = project.http.put(f"{labels}/beta", json={"branch_id": project.main, "at": at})
    assert response.status_code == 422
    assert "at" in response.json()["errors"][0]["pointer"]


def test_pages(project, labels):
    names = ["A", "b", "C", "d"]
    for name in reversed(names):
        project.http.put(f"{labels}/{name}", json={"branch_id": project.main})
    first = project.http.get(labels, params={"limit": 3}).json()
    rest = project.http.get(labels, params={"limit": 3, "cursor": first["next_cursor"]}).json()
    assert [row["name"] for row in first["items"] + rest["items"]] == names
    assert rest["next_cursor"] is None


def test_roles_and_tenants(project, labels, new_project):
    body = {"branch_id": project.main}
    contributor, lead, stranger = project.member("contributor"), project.member("lead"), project.api.user("editor")
    assert contributor.http.put(f"{labels}/x", json=body).status_code == 403
    assert stranger.http.put(f"{labels}/x", json=body).status_code == 404
    assert stranger.http.get(labels).status_code == 404
    assert lead.http.put(f"{labels}/x", json=body).status_code == 201
    assert contributor.http.get(f"{labels}/x").status_code == 200
    assert contributor.http.delete(f"{labels}/x").status_code == 403
    assert stranger.http.get(f"{labels}/x").status_code == 404
    assert lead.http.put(f"{labels}/y", json={"branch_id": new_project().main}).status_code == 404


def test_the_database_refuses_a_branch_of_another_project(api, project, new_project):
    with psycopg.connect(api.owner_url) as owner, pytest.raises(psycopg.errors.ForeignKeyViolation):
        owner.execute(
            "INSERT INTO labels SELECT %s, 'x', %s, 0, created_by FROM projects WHERE id = %s",
            (project.id, new_project().main, project.id),
        )
