"""History: what a branch shows, with its ancestors up to where it began."""

import pytest


@pytest.fixture
def grown(project):
    """Changelists 1 and 2 on main, dev from there, 3 on main, 4 on dev; dev's id."""
    project.add("a", b"1")
    project.add("B/b", b"2")
    dev = project.http.post("/branches", json={"project_id": project.id, "name": "dev"}).json()["id"]
    project.submit([{"action": "edit", "path": "a", "base_version": 1, "sha256": project.put(b"3")}])
    content = project.put(b"4")
    project.submit([{"action": "move", "path": "c", "moved_from": "a", "base_version": 1, "sha256": content}], dev)
    return dev


def numbers(project, branch: str, **query) -> list[int]:
    response = project.http.get(f"/branches/{branch}/history", params=query)
    assert response.status_code == 200, response.text
    return [row["number"] for row in response.json()["items"]]


def test_a_branch_shows_its_parents_up_to_where_it_began(project, grown):
    project.open([], grown)  # what is open is not history
    assert numbers(project, project.main) == [3, 2, 1]
    assert numbers(project, grown) == [4, 2, 1]
    assert numbers(project, grown, at=3) == [2, 1]
    assert numbers(project, grown, at=1) == [1]


def test_of_one_path(project, grown):
    assert numbers(project, project.main, path="a") == [3, 1]
    assert numbers(project, grown, path="a") == [4, 1]
    assert numbers(project, grown, path="c") == [4]
    assert numbers(project, grown, path="b/B", at=3) == [2]
    assert numbers(project, grown, path="nowhere") == []


def test_pages(project, grown):
    query, seen = {"limit": 1}, []
    while True:
        page = project.http.get(f"/branches/{grown}/history", params=query).json()
        seen += [row["number"] for row in page["items"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert seen == [4, 2, 1]


def test_a_stranger_sees_nothing(project, grown):
    assert project.api.user().http.get(f"/branches/{grown}/history").status_code == 404
