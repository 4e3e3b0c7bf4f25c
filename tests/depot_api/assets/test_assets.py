"""Assets: metadata, and versions that come into being through submit."""

import os


def make_asset(project, path: str, **more) -> dict[str, object]:
    response = project.http.post("/assets", json={"project_id": project.id, "path": path, **more})
    assert response.status_code == 201, response.text
    return response.json()


def test_upload_read_and_history(project):
    asset = make_asset(project, "Content/Hero.uasset", asset_type="mesh", tags=["hero"], metadata={"lod": [1, 2.5]})
    url = f"/assets/{asset['id']}"
    first, second = os.urandom(3_000_000), b"second"
    response = project.http.post(f"{url}/versions/upload", files={"file": first}, data={"description": "first"})
    assert (response.status_code, response.json()["number"]) == (201, 1), response.text
    stale = project.http.post(f"{url}/versions/upload", files={"file": second})
    assert (stale.status_code, stale.json()["stale"][0]["head_version"]) == (409, 1)
    sha256 = project.put(second)
    made = project.http.post(f"{url}/versions", json={"sha256": sha256, "base_version": 1})
    assert (made.status_code, made.json()["number"], made.json()["action"]) == (201, 2, "edit")
    assert [version["number"] for version in project.http.get(f"{url}/versions").json()["items"]] == [2, 1]
    assert project.http.get(f"{url}/versions/1/content").content == first
    assert project.http.get(f"{url}/versions/2/content").content == second
    assert project.http.get(f"{url}/versions/3/content").status_code == 404
    got = project.http.get(url).json()
    assert (got["last_version"], got["tags"], got["metadata"]) == (2, ["hero"], {"lod": [1, 2.5]})
    listed = project.http.get(f"/projects/{project.id}/changelists", params={"status": "abandoned"}).json()["items"]
    assert len(listed) == 1, "the refused upload leaves no open changelist behind"


def test_paths_are_taken_once_in_any_case(project):
    make_asset(project, "Content/Hero")
    wanted = {"project_id": project.id, "path": "Content/Hero"}
    assert project.http.post("/assets", json=wanted).status_code == 409
    assert project.http.post("/assets", json={**wanted, "path": "content/HERO"}).status_code == 422
    assert project.http.post("/assets", json={**wanted, "path": "../up"}).status_code == 422


def test_lists_by_prefix_in_pages(project):
    for path in ("a/1", "a/2", "a/3", "ab", "b/1"):
        make_asset(project, path)
    query, seen = {"project_id": project.id, "prefix": "A/", "limit": 2}, []
    while True:
        page = project.http.get("/assets", params=query).json()
        seen += [asset["path"] for asset in page["items"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert seen == ["a/1", "a/2", "a/3"]


def test_strangers_and_viewers(project):
    asset = make_asset(project, "a")
    assert project.api.user().http.get(f"/assets/{asset['id']}").status_code == 404
    viewer = project.member("viewer")
    assert viewer.http.get(f"/assets/{asset['id']}").status_code == 200
    assert viewer.http.post(f"/assets/{asset['id']}/versions/upload", files={"file": b"x"}).status_code == 403
