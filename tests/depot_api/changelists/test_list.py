import pytest


def numbers(http, project, **query: object) -> list[int | None]:
    response = http.get(f"/projects/{project.id}/changelists", params=query)
    assert response.status_code == 200, response.text
    return [one["number"] for one in response.json()["items"]]


def test_by_author_and_number(project):
    other = project.member("contributor")
    assert [project.add(name, b"") for name in ("a", "b")] == [1, 2]
    project.open([], http=other.http)
    assert numbers(project.http, project) == [None, 2, 1]
    assert numbers(project.http, project, author_id=other.id) == [None]
    assert numbers(project.http, project, number=1) == [1]
    assert numbers(other.http, project, number=3) == []
    assert numbers(project.http, project, number=1, author_id=other.id) == []
    assert numbers(project.http, project, number=1, status="open") == []


def test_a_number_is_the_last_page_too(project):
    project.add("a", b"")
    query = {"number": 1, "limit": 1}
    first = project.http.get(f"/projects/{project.id}/changelists", params=query).json()
    assert numbers(project.http, project, **query, cursor=first["next_cursor"]) == []


def test_numbers_are_of_one_project(api, project, new_project):
    project.add("a", b"")
    assert numbers(api.client(), new_project(), number=1) == []
    assert api.user().http.get(f"/projects/{project.id}/changelists?number=1").status_code == 404


@pytest.mark.parametrize("number", ["0", "-1", "x", "99999999999999999999", "%00"])
def test_bad_numbers(project, number: str):
    assert project.http.get(f"/projects/{project.id}/changelists?number={number}").status_code == 422
