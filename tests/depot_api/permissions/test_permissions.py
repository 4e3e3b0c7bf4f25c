"""Permissions by path: the last rule that matches counts, and what may not be read is not there."""

import os

import psycopg
import pytest
from psycopg import errors


def slug(response):
    return response.status_code, response.json()["type"].removeprefix("urn:asset-depot:problem:")


def set_rules(project, *rules):
    body = {"rules": [dict(zip(("pattern", "access", "username"), rule, strict=False)) for rule in rules]}
    response = project.http.put(f"/projects/{project.id}/path-permissions", json=body)
    assert response.status_code == 200, response.text
    return response.json()["rules"]


def access(project, user, path):
    return user.http.get(f"/projects/{project.id}/path-access", params={"path": path}).json()["access"]


@pytest.fixture
def artist(project):
    """A contributor who works on meshes, may listen to audio, and does not know of the surprise."""
    artist = project.member("contributor")
    for path in ("Content/Mesh/a.fbx", "Content/Audio/b.wav", "Content/Surprise/c.png"):
        project.add(path, path.encode())
    set_rules(project, ("Content/Audio/**", "read"), ("Content/Surprise/**", "none"), ("Content/Mesh/**", "write"))
    return artist


def test_the_last_rule_that_matches_counts(project):
    artist, other = project.member("contributor"), project.member("contributor")
    set_rules(
        project,
        ("Content/**", "read"),
        ("Content/Mesh/**", "write", artist.name),
        ("*.locked", "none"),
    )
    assert [
        access(project, artist, path) for path in ("Content/x", "content/MESH/x", "Content/Mesh/x.locked", "Docs/x")
    ] == [
        "read",
        "write",
        "none",
        "delete",
    ]
    assert access(project, other, "Content/Mesh/x") == "read"
    assert access(project, project.member("manager"), "a.locked") == "delete", "who sets the rules is not locked out"


def test_what_may_not_be_read_is_nowhere(project, artist):
    hidden = "Content/Surprise/c.png"
    manifest = artist.http.get(f"/branches/{project.main}/manifest").json()["items"]
    assert [row["path"] for row in manifest] == ["Content/Audio/b.wav", "Content/Mesh/a.fbx"]
    found = artist.http.get(f"/projects/{project.id}/search", params={"prefix": "Content/"}).json()["items"]
    assert hidden not in [row["path"] for row in found] and len(found) == 2
    (asset,) = project.http.get("/assets", params={"project_id": project.id, "prefix": hidden}).json()["items"]
    assert artist.http.get("/assets", params={"project_id": project.id, "prefix": hidden}).json()["items"] == []
    for url in ("", "/versions", "/versions/1/content"):
        assert artist.http.get(f"/assets/{asset['id']}{url}").status_code == 404
    sha256 = project.heads()[hidden][1]
    assert artist.http.get(f"/projects/{project.id}/objects/{sha256}").status_code == 404
    changelists = project.http.get(f"/projects/{project.id}/changelists").json()["items"]
    seen = [i["path"] for c in changelists for i in artist.http.get(f"/changelists/{c['id']}/items").json()["items"]]
    assert sorted(seen) == ["Content/Audio/b.wav", "Content/Mesh/a.fbx"]


@pytest.mark.parametrize(
    ("item", "needed"),
    [
        ({"action": "edit", "path": "Content/Audio/b.wav", "base_version": 1}, "write"),
        ({"action": "add", "path": "Content/Surprise/d.png"}, "write"),
        ({"action": "delete", "path": "Content/Mesh/a.fbx", "base_version": 1}, "delete"),
        ({"action": "move", "path": "Other/a.fbx", "moved_from": "Content/Mesh/a.fbx", "base_version": 1}, "delete"),
    ],
)
def test_what_may_not_be_written_is_refused_with_what_it_needs(project, artist, item, needed):
    content = os.urandom(8)
    if item["action"] != "delete":
        item = {**item, "sha256": project.put(content)}
    changelist = project.open([], http=artist.http)
    response = artist.http.post(f"/changelists/{changelist}/items", json={"items": [item]})
    assert slug(response) == (403, "path-forbidden")
    assert f"needs {needed}" in response.json()["errors"][0]["detail"]


def test_what_may_be_written_is_submitted(project, artist):
    content = os.urandom(8)
    sha256 = project.put(content)
    artist.http.put(f"/projects/{project.id}/objects/{sha256}", content=content)
    item = {"action": "edit", "path": "Content/Mesh/a.fbx", "base_version": 1, "sha256": sha256}
    changelist = project.open([item], http=artist.http)
    assert artist.http.post(f"/changelists/{changelist}/submit").status_code == 200


@pytest.mark.parametrize("left", ["none", "read"])
def test_rules_that_change_under_an_open_changelist_hold_at_submit(project, left):
    artist, content = project.member("contributor"), os.urandom(8)
    sha256 = project.put(content)
    artist.http.put(f"/projects/{project.id}/objects/{sha256}", content=content)
    changelist = project.open([{"action": "add", "path": "a", "sha256": sha256}], http=artist.http)
    set_rules(project, ("a", left))
    assert slug(artist.http.post(f"/changelists/{changelist}/submit")) == (403, "path-forbidden")
    assert project.heads() == {}


def test_a_head_is_not_written_past_the_rules_in_the_database_either(project, artist):
    with psycopg.connect(project.api.service_url) as service:
        service.execute("SELECT set_app_user(%s)", (artist.id,))
        with pytest.raises(errors.InsufficientPrivilege):
            service.execute(
                """INSERT INTO branch_heads (project_id, branch_id, path_key, from_no, path, asset_id)
                   SELECT %s, %s, 'content/mesh/a.fbx', 99, 'Content/Mesh/a.fbx', id FROM assets
                   WHERE path_key = 'content/mesh/a.fbx' AND project_id = %s""",
                (project.id, project.main, project.id),
            )


def test_rules_are_the_managers(project, artist):
    url = f"/projects/{project.id}/path-permissions"
    assert len(artist.http.get(url).json()["rules"]) == 3
    assert artist.http.put(url, json={"rules": []}).status_code == 403
    assert project.member("lead").http.put(url, json={"rules": []}).status_code == 403
    assert project.member("manager").http.put(url, json={"rules": []}).status_code == 200
    assert project.api.user().http.get(url).status_code == 404


@pytest.mark.parametrize(
    "rule",
    [
        {"pattern": "//", "access": "read"},
        {"pattern": "a", "access": "all"},
        {"pattern": "a", "access": "read", "role": "manager"},
        {"pattern": "a", "access": "read", "role": "viewer", "username": "admin"},
        {"pattern": "a", "access": "read", "username": "nobody at all"},
    ],
)
def test_rules_that_mean_nothing_are_refused(project, rule):
    response = project.http.put(f"/projects/{project.id}/path-permissions", json={"rules": [rule]})
    assert slug(response) == (422, "invalid")
