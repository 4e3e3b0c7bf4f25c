"""An asset's life after its first version: tagged, moved, deleted, restored; and its history through all of it."""

import psycopg
import pytest


def asset_at(project, path: str) -> dict:
    found = project.http.get("/assets", params={"project_id": project.id, "prefix": path}).json()["items"]
    return next(asset for asset in found if asset["path"] == path)


@pytest.fixture
def hero(project):
    """Where the asset `hero` is, with one version on main."""
    project.add("hero", b"hero")
    return f"/assets/{asset_at(project, 'hero')['id']}"


def slug(response) -> str:
    return response.json()["type"].removeprefix("urn:asset-depot:problem:")


def test_what_is_left_out_of_an_update_stays(api, project, hero):
    project.http.patch(hero, json={"asset_type": "mesh", "metadata": {"lod": 2}})
    answer = project.http.patch(hero, json={"tags": ["b", "a", "b"]})
    asset = answer.json()
    assert (asset["asset_type"], asset["tags"], asset["metadata"]) == ("mesh", ["b", "a"], {"lod": 2})
    assert project.http.get(hero).json() == asset
    project.submit([{"action": "edit", "path": "hero", "base_version": 1, "sha256": project.put(b"2")}])
    with psycopg.connect(api.owner_url) as owner:
        audited = owner.execute(
            """SELECT before -> 'tags', after -> 'tags' FROM audit_log
               WHERE table_name = 'assets' AND operation = 'UPDATE' AND project_id = %s ORDER BY id""",
            (project.id,),
        ).fetchall()
        told = owner.execute(
            "SELECT payload -> 'tags' FROM events WHERE project_id = %s AND kind = 'asset.updated' ORDER BY id",
            (project.id,),
        ).fetchall()
    assert audited == [([], []), ([], ["b", "a"])]  # and none for the submit
    assert told == [(None,), (["b", "a", "b"],)]


@pytest.mark.parametrize("body", [{"tags": [""]}, {"tags": ["\x00"]}, {"metadata": []}, {"path": "x"}, {"tags": "a"}])
def test_an_update_that_makes_no_sense_is_refused(project, hero, body):
    assert project.http.patch(hero, json=body).status_code == 422


def test_a_move_takes_everything_along(project, hero):
    project.http.patch(hero, json={"asset_type": "mesh", "tags": ["main"], "metadata": {"lod": 2}})
    answer = project.http.post(f"{hero}/move", json={"to_path": "Cast/hero", "base_version": 1, "description": "Cast"})
    assert (answer.status_code, answer.json()["number"], answer.json()["action"]) == (201, 1, "move")
    assert project.heads() == {"Cast/hero": (1, project.put(b"hero"))}
    moved = project.http.get(f"/assets/{answer.json()['asset_id']}").json()
    assert (moved["path"], moved["asset_type"], moved["tags"]) == ("Cast/hero", "mesh", ["main"])
    assert moved["metadata"] == {"lod": 2}


def test_history_follows_the_moves(project, hero):
    project.submit([{"action": "edit", "path": "hero", "base_version": 1, "sha256": project.put(b"2")}])
    there = project.http.post(f"{hero}/move", json={"to_path": "cast", "base_version": 2}).json()["asset_id"]
    project.add("hero", b"someone else")  # 4: another life of that path
    back = project.http.post(f"/assets/{there}/move", json={"to_path": "star", "base_version": 1}).json()["asset_id"]
    query, seen = {"limit": 2}, []
    while True:
        page = project.http.get(f"/assets/{back}/history", params=query).json()
        seen += [(row["changelist_no"], row["path"], row["number"], row["moved_from"]) for row in page["items"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert seen == [(5, "star", 1, "cast"), (3, "cast", 1, "hero"), (2, "hero", 2, None), (1, "hero", 1, None)]
    own = project.http.get(f"{hero}/history").json()["items"]
    assert [row["changelist_no"] for row in own] == [4, 2, 1]


def test_history_of_moves_in_a_circle_ends(project, hero):
    there = project.http.post(f"{hero}/move", json={"to_path": "away", "base_version": 1}).json()["asset_id"]
    project.http.post(f"/assets/{there}/move", json={"to_path": "hero", "base_version": 1})
    own = project.http.get(f"{hero}/history").json()["items"]
    assert [(row["path"], row["number"]) for row in own] == [("hero", 2), ("away", 1), ("hero", 1)]


def test_a_move_that_cannot_be_is_refused(project, hero):
    project.add("taken", b"t")
    move = f"{hero}/move"
    assert slug(project.http.post(move, json={"to_path": "taken", "base_version": 1})) == "stale-base"
    assert project.http.post(move, json={"to_path": "free", "base_version": 2}).status_code == 404
    broken = project.http.post(move, json={"to_path": "a//b", "base_version": 1})
    assert (slug(broken), broken.json()["errors"][0]["pointer"]) == ("invalid-path", "/to_path")
    assert slug(project.http.post(move, json={"to_path": "taken/x", "base_version": 1})) == "path-in-use"
    assert project.http.post(move, json={"to_path": "hero/x", "base_version": 1}).status_code == 201


def test_deleted_and_restored(project, hero):
    project.submit([{"action": "edit", "path": "hero", "base_version": 1, "sha256": project.put(b"2")}])
    stale = project.http.post(f"{hero}/delete", json={"base_version": 1})
    assert slug(stale) == "stale-base"
    deleted = project.http.post(f"{hero}/delete", json={"base_version": 2, "description": "Cut"})
    assert (deleted.status_code, deleted.json()["number"]) == (200, 3)
    assert project.heads() == {}
    restored = project.http.post(f"{hero}/restore", json={})
    assert (restored.status_code, restored.json()["number"]) == (201, 3)
    assert project.heads() == {"hero": (3, project.put(b"2"))}
    again = project.http.post(f"{hero}/restore", json={"version": 1})
    assert (slug(again), again.json()["stale"][0]["head_version"]) == ("stale-base", 3)


def test_restored_from_a_version_and_on_a_branch(project, hero):
    project.submit([{"action": "edit", "path": "hero", "base_version": 1, "sha256": project.put(b"2")}])
    dev = project.http.post("/branches", json={"project_id": project.id, "name": "dev"}).json()["id"]
    project.http.post(f"{hero}/delete", json={"base_version": 2, "branch_id": dev})
    assert (set(project.heads()), set(project.heads(dev))) == ({"hero"}, set())
    answer = project.http.post(f"{hero}/restore", json={"branch_id": dev, "version": 1})
    assert answer.status_code == 201, answer.text
    assert project.heads(dev) == {"hero": (3, project.put(b"hero"))}
    assert project.http.post(f"{hero}/restore", json={"version": 9}).status_code == 404


def test_roles_and_tenants(project, hero, new_project):
    viewer, stranger = project.member("reviewer"), project.api.user("editor")
    calls = [
        ("PATCH", "", {"tags": ["x"]}),
        ("POST", "/move", {"to_path": "x", "base_version": 1}),
        ("POST", "/delete", {"base_version": 1}),
        ("POST", "/restore", {}),
    ]
    for method, suffix, body in calls:
        assert viewer.http.request(method, hero + suffix, json=body).status_code == 403
        assert stranger.http.request(method, hero + suffix, json=body).status_code == 404
    assert viewer.http.get(f"{hero}/history").status_code == 200
    assert stranger.http.get(f"{hero}/history").status_code == 404
    elsewhere = {"branch_id": new_project().main}
    assert project.http.post(f"{hero}/restore", json=elsewhere).status_code == 404
    assert project.http.post(f"{hero}/delete", json={"base_version": 1, **elsewhere}).status_code == 404
