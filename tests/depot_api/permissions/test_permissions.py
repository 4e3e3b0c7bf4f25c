"""Permissions by path: the last rule that matches counts, and what may not be read is not there."""

import hashlib
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


def content_of(project, user, content):
    sha256 = hashlib.sha256(content).hexdigest()
    assert user.http.put(f"/projects/{project.id}/objects/{sha256}", content=content).status_code == 201
    return sha256


def lock(project, user, path, base_version=1):
    body = {"project_id": project.id, "branch_id": project.main, "path": path, "base_version": base_version}
    return user.http.post("/locks", json=body)


def shelve(project, user, items):
    body = {"project_id": project.id, "branch_id": project.main, "items": items}
    return user.http.post("/shelves", json=body)


def test_what_may_only_be_read_is_neither_locked_nor_described_nor_shelved(project, artist):
    path, new = "Content/Audio/b.wav", "Content/Audio/new.wav"
    (asset,) = artist.http.get("/assets", params={"project_id": project.id, "prefix": path}).json()["items"]
    sha256 = content_of(project, artist, b"mine")
    shelf = shelve(project, artist, [{"action": "add", "path": "Content/Mesh/new.fbx", "sha256": sha256}]).json()["id"]
    edit = {"action": "edit", "path": path, "base_version": 1, "sha256": sha256}
    refused = {
        "lock": lock(project, artist, path),
        "lock of a new path": lock(project, artist, new, None),
        "tags": artist.http.patch(f"/assets/{asset['id']}", json={"tags": ["mine"]}),
        "asset": artist.http.post("/assets", json={"project_id": project.id, "path": new}),
        "shelf": shelve(project, artist, [edit]),
        "shelf, replaced": artist.http.put(f"/shelves/{shelf}/items", json={"items": [edit]}),
    }
    assert {name: slug(response) for name, response in refused.items()} == dict.fromkeys(
        refused, (403, "path-forbidden")
    )
    assert all("needs write; you have read" in response.json()["detail"] for response in refused.values())
    assert lock(project, artist, "Content/Mesh/a.fbx").status_code == 201
    with psycopg.connect(project.api.service_url, autocommit=True) as service:
        for statement in (
            """INSERT INTO locks (project_id, path_key, path, holder_id, expires_at)
               VALUES (%(project)s, 'content/audio/b.wav', 'Content/Audio/b.wav', app_user_id(), now())""",
            "UPDATE assets SET tags = '{mine}' WHERE id = %(asset)s",
            """INSERT INTO assets (project_id, path_key, path, created_by)
               VALUES (%(project)s, 'content/audio/new.wav', 'Content/Audio/new.wav', app_user_id())""",
            """INSERT INTO shelf_items (project_id, shelf_id, path_key, path, action, base_version)
               VALUES (%(project)s, %(shelf)s, 'content/mesh/a.fbx', 'Content/Mesh/a.fbx', 'delete', 1)""",
        ):
            with service.transaction(), pytest.raises(errors.InsufficientPrivilege):
                service.execute("SELECT set_app_user(%s)", (artist.id,))
                service.execute(statement, {"project": project.id, "asset": asset["id"], "shelf": shelf})


def test_rules_that_change_later_hold_for_locks_and_changelists(project):
    artist = project.member("contributor")
    sha256 = content_of(project, artist, b"mine")
    held = lock(project, artist, "a", None).json()
    changelist = project.open([{"action": "add", "path": "a", "sha256": sha256}], http=artist.http)
    set_rules(project, ("a", "read"))
    renewal = artist.http.post(f"/locks/{held['id']}/renew", json={}, headers={"If-Match": "*"})
    assert slug(renewal) == (403, "path-forbidden")
    assert slug(artist.http.post(f"/changelists/{changelist}/shelve", json={})) == (403, "path-forbidden")
    set_rules(project, ("a", "none"))
    item = {"action": "add", "path": "b", "sha256": sha256}
    counted = artist.http.post(f"/changelists/{changelist}/items", json={"items": [item]})
    assert counted.json() == {"items_count": 2}, "with the one that is hidden"
    for step in ("shelve", "submit"):
        refused = artist.http.post(f"/changelists/{changelist}/{step}", json={})
        assert slug(refused) == (403, "path-forbidden")
    assert project.heads() == {}


def test_what_may_not_be_read_is_not_told_of(project, artist):
    hidden, moved = "Content/Surprise/c.png", "Content/Mesh/moved.png"
    (asset,) = project.http.get("/assets", params={"project_id": project.id, "prefix": hidden}).json()["items"]
    project.http.patch(f"/assets/{asset['id']}", json={"metadata": {"plot": "told"}})
    project.http.post("/assets", json={"project_id": project.id, "path": "Content/Surprise/e.png"})
    held = project.http.post(
        "/locks", json={"project_id": project.id, "branch_id": project.main, "path": hidden, "base_version": 1}
    ).json()
    assert project.http.post(f"/locks/{held['id']}/break", json={"reason": "over"}).status_code == 204
    sha256 = project.put(hidden.encode())
    move = {"action": "move", "path": moved, "moved_from": hidden, "base_version": 1, "sha256": sha256}
    changelist = project.open([move])
    for path in (hidden, moved, None):
        project.http.post(f"/changelists/{changelist}/comments", json={"body": "look", "path": path})
    assert shelve(project, project, [move]).status_code == 201
    assert project.http.post(f"/changelists/{changelist}/submit").status_code == 200
    (target,) = artist.http.get("/assets", params={"project_id": project.id, "prefix": moved}).json()["items"]
    (shelf,) = artist.http.get(f"/projects/{project.id}/shelves").json()["items"]
    seen = {
        url: artist.http.get(url).text
        for url in (
            f"/projects/{project.id}/events?limit=1000",
            f"/changelists/{changelist}/items",
            f"/changelists/{changelist}/comments",
            f"/shelves/{shelf['id']}/items",
            f"/assets/{target['id']}/history",
        )
    }
    assert {url: text for url, text in seen.items() if "Surprise" in text} == {}
    assert [row["path"] for row in artist.http.get(f"/changelists/{changelist}/comments").json()["items"]] == [
        moved,
        None,
    ]
    (version,) = artist.http.get(f"/assets/{target['id']}/history").json()["items"]
    assert (version["action"], version["moved_from"]) == ("move", None)
    assert project.http.get(f"/assets/{target['id']}/history").json()["items"][0]["moved_from"] == hidden
    about_hidden = {"body": "look", "path": hidden}
    assert slug(artist.http.post(f"/changelists/{changelist}/comments", json=about_hidden)) == (403, "path-forbidden")
    told = project.http.get(f"/projects/{project.id}/events?limit=1000").text
    assert all(kind in told for kind in ("asset.created", "asset.updated", "lock.acquired", "lock.broken"))
    with psycopg.connect(project.api.service_url) as service:
        service.execute("SELECT set_app_user(%s)", (artist.id,))
        assert service.execute("SELECT FROM lock_breaks").rowcount == 0


def test_a_cursor_stays_one_when_its_event_is_hidden(project):
    artist, url = project.member("contributor"), f"/projects/{project.id}/events"
    project.http.post("/assets", json={"project_id": project.id, "path": "late/a"})
    last = artist.http.get(url).json()["items"][-1]
    assert last["payload"]["path"] == "late/a"
    set_rules(project, ("late/**", "none"))
    later = artist.http.get(url, params={"after": last["cursor"]}).json()["items"]
    assert [event["kind"] for event in later] == ["path_permissions.set"]
    assert "late/a" not in artist.http.get(url).text


def test_events_from_before_paths_were_noted_are_not_shown_to_whom_a_rule_is_about(project, artist):
    with psycopg.connect(project.api.owner_url) as owner:
        owner.execute(
            """INSERT INTO events (project_id, kind, actor_id, payload) SELECT id, kind, created_by, '{}'
               FROM projects CROSS JOIN unnest(%s::text[]) kind WHERE id = %s""",
            (["asset.updated", "lock.broken", "label.set"], project.id),
        )
    kinds = [event["kind"] for event in artist.http.get(f"/projects/{project.id}/events").json()["items"]]
    assert ("label.set" in kinds, "asset.updated" in kinds, "lock.broken" in kinds) == (True, False, False)


def test_what_lies_on_a_shelf_at_a_path_that_may_be_read_is_fetched_and_submitted(project, artist):
    sha256, secret = project.put(b"for all"), project.put(b"not for all")
    items = [
        {"action": "add", "path": "Content/Mesh/new.fbx", "sha256": sha256},
        {"action": "add", "path": "Content/Surprise/new.png", "sha256": secret},
    ]
    shelf = shelve(project, project, items).json()["id"]
    assert artist.http.get(f"/projects/{project.id}/objects/{sha256}").content == b"for all"
    assert artist.http.get(f"/projects/{project.id}/objects/{secret}").status_code == 404
    changelist = project.open([], http=artist.http)
    unshelved = artist.http.post(f"/shelves/{shelf}/unshelve", json={"changelist_id": changelist})
    assert unshelved.json()["items_count"] == 1
    assert artist.http.post(f"/changelists/{changelist}/submit").status_code == 200
    assert "Content/Mesh/new.fbx" in project.heads()


def test_half_a_changelist_is_not_undone(project, artist):
    half = [
        {"action": "edit", "path": path, "base_version": 1, "sha256": project.put(path.encode() + b"2")}
        for path in ("Content/Mesh/a.fbx", "Content/Surprise/c.png")
    ]
    whole = project.open(half[:1])
    mixed = project.open([*half[1:], {"action": "add", "path": "Content/Mesh/b.fbx", "sha256": half[0]["sha256"]}])
    for changelist in (whole, mixed):
        assert project.http.post(f"/changelists/{changelist}/submit").status_code == 200
    assert artist.http.post(f"/changelists/{whole}/revert", json={}).status_code == 201
    assert slug(artist.http.post(f"/changelists/{mixed}/revert", json={})) == (403, "path-forbidden")


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
