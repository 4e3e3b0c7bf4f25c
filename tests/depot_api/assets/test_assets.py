"""Assets: metadata, and versions that come into being through submit."""

import os
from concurrent.futures import ThreadPoolExecutor

import psycopg
from psycopg import sql


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
    listed = project.http.get(f"/projects/{project.id}/changelists").json()["items"]
    assert [one["number"] for one in listed] == [2, 1], "the refused upload leaves no changelist behind"


def test_a_version_that_the_database_refuses_leaves_nothing_behind(project):
    project.add("a", b"1")
    (asset,) = project.http.get("/assets", params={"project_id": project.id}).json()["items"]
    with psycopg.connect(project.api.owner_url) as owner:
        owner.execute(
            sql.SQL("""CREATE FUNCTION break_this() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                    IF NEW.project_id = {} THEN RAISE EXCEPTION 'disk gone' USING ERRCODE = 'io_error'; END IF;
                    RETURN NEW; END $$""").format(sql.Literal(project.id))
        )
        owner.execute(
            "CREATE TRIGGER break_this BEFORE INSERT ON asset_versions FOR EACH ROW EXECUTE FUNCTION break_this()"
        )
    try:
        body = {"sha256": project.put(b"2"), "base_version": 1}
        assert project.http.post(f"/assets/{asset['id']}/versions", json=body).status_code >= 500
    finally:
        with psycopg.connect(project.api.owner_url) as owner:
            owner.execute("DROP FUNCTION break_this() CASCADE")
    assert [one["number"] for one in project.http.get(f"/projects/{project.id}/changelists").json()["items"]] == [1]


def test_tags_that_are_added_at_once_all_stay(project):
    asset = make_asset(project, "a", tags=["old", "gone"])
    url = f"/assets/{asset['id']}"
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: project.http.patch(url, json={"add_tags": [f"t{n}"]}), range(24)))
    assert {answer.status_code for answer in answers} == {200}
    changed = project.http.patch(url, json={"add_tags": ["old", "new"], "remove_tags": ["gone"]}).json()["tags"]
    assert (changed[0], changed[-1]) == ("old", "new")
    assert set(changed) == {"old", "new", *(f"t{n}" for n in range(24))}
    assert len(changed) == 26
    many = project.http.patch(url, json={"add_tags": [f"more{n}" for n in range(90)]})
    assert (many.status_code, many.json()["errors"][0]["pointer"]) == (422, "/add_tags")


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
