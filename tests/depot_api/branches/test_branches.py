"""Branches copy nothing, and show their parent as of where they started."""

import psycopg


def make_branch(project, name: str, **more) -> dict[str, object]:
    response = project.http.post("/branches", json={"project_id": project.id, "name": name, **more})
    assert response.status_code == 201, response.text
    return response.json()


def test_creating_a_branch_copies_nothing(api, project):
    project.add("a", b"1")
    count = "SELECT count(*) FROM branch_heads WHERE project_id = %s"
    with psycopg.connect(api.owner_url) as owner:
        before = owner.execute(count, (project.id,)).fetchone()
        branch = make_branch(project, "dev")
        assert owner.execute(count, (project.id,)).fetchone() == before
    assert branch["head_no"] == branch["parent_at"] == 1
    assert project.heads(branch["id"]) == project.heads()


def test_a_branch_does_not_see_what_its_parent_does_later(project):
    project.add("a", b"1")
    dev = make_branch(project, "dev")["id"]
    project.add("b", b"2")
    past = make_branch(project, "past", parent_at=1)["id"]
    deep = make_branch(project, "deep", parent_id=dev)["id"]
    project.add("c", b"3", branch=dev)
    assert set(project.heads(dev)) == {"a", "c"}
    assert set(project.heads(past)) == set(project.heads(deep)) == {"a"}
    assert set(project.heads()) == {"a", "b"}
    assert set(project.heads(dev, at=2)) == {"a"}


def test_pages_and_stream_agree_and_stay_of_one_moment(project):
    content = project.put(b"x")
    paths = sorted(f"d{n % 3}/f{n}" for n in range(25))
    project.submit([{"action": "add", "path": path, "sha256": content} for path in paths])
    seen, query = [], {"limit": 7}
    while True:
        page = project.http.get(f"/branches/{project.main}/manifest", params=query).json()
        seen += [row["path"] for row in page["items"]]
        if page["next_cursor"] is None:
            break
        if len(seen) == 7:
            project.submit([{"action": "delete", "path": paths[-1], "base_version": 1}])
        query["cursor"] = page["next_cursor"]
    assert seen == paths == sorted(project.heads(at=1))
    assert page["at"] == 1


def test_names_are_taken_once_in_any_case(project):
    make_branch(project, "Dev")
    response = project.http.post("/branches", json={"project_id": project.id, "name": "dev"})
    assert response.status_code == 409


def test_roles(project):
    wanted = {"project_id": project.id, "name": "mine"}
    assert project.member("contributor").http.post("/branches", json=wanted).status_code == 403
    assert project.api.user("editor").http.post("/branches", json=wanted).status_code == 404
    assert project.member("lead").http.post("/branches", json=wanted).status_code == 201
