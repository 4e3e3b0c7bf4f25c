"""Obliterating: planned before done, taken back in time, bytes gone everywhere, history and 410 left."""

import hashlib
import os
from pathlib import Path

import psycopg
import pytest


def slug(response):
    return response.status_code, response.json()["type"].removeprefix("urn:asset-depot:problem:")


def object_path(store: Path, sha256: str) -> Path:
    return store / "objects" / sha256[:2] / f"{sha256}.bin.gz"


def asset_of(project, path):
    (asset,) = project.http.get("/assets", params={"project_id": project.id, "prefix": path}).json()["items"]
    return asset["id"]


def grace_over(project):
    with psycopg.connect(project.api.owner_url) as owner:
        owner.execute("UPDATE obliterations SET due_at = now() WHERE project_id = %s", (project.id,))


def request(project, asset, http=None, **more):
    body = {"asset_id": asset, "reason": "a leaked key", **more}
    return (http or project.http).post(f"/projects/{project.id}/obliterations", json=body)


@pytest.fixture
def leaked(project):
    """An asset with a version 1 that has to go and a harmless version 2; (asset id, hash of version 1)"""
    secret, harmless = project.put(os.urandom(64)), project.put(os.urandom(64))
    project.submit([{"action": "add", "path": "key.pem", "sha256": secret}])
    project.submit([{"action": "edit", "path": "key.pem", "base_version": 1, "sha256": harmless}])
    return asset_of(project, "key.pem"), secret


def test_the_dry_run_is_the_default_and_changes_nothing(project, leaked):
    asset, sha256 = leaked
    plan = request(project, asset, versions=[1])
    assert plan.status_code == 200
    assert plan.json() == {
        "project_id": project.id,
        "versions": 1,
        "objects": 1,
        "objects_removed": 1,
        "removed_bytes": 64,
        "obliteration_id": None,
    }
    assert project.http.get(f"/projects/{project.id}/objects/{sha256}").status_code == 200


def test_content_goes_in_two_phases_and_history_stays(project, leaked):
    asset, sha256 = leaked
    made = request(project, asset, versions=[1], dry_run=False).json()["obliteration_id"]
    for url in (f"/projects/{project.id}/objects/{sha256}", f"/assets/{asset}/versions/1/content"):
        assert slug(project.http.get(url)) == (410, "obliterated")
    assert project.http.get(f"/assets/{asset}/versions/2/content").status_code == 200
    assert object_path(project.api.store, sha256).exists(), "within the time of grace"
    assert slug(project.http.post(f"/obliterations/{made}/complete")) == (409, "conflict")
    grace_over(project)
    done = project.http.post(f"/obliterations/{made}/complete")
    assert (done.status_code, done.json()["status"]) == (200, "completed")
    assert not object_path(project.api.store, sha256).exists()
    newer, older = project.http.get(f"/assets/{asset}/versions").json()["items"]
    assert [(v["number"], v["sha256"] == sha256, v["obliterated"]) for v in (newer, older)] == [
        (2, False, False),
        (1, True, True),
    ]
    assert slug(project.http.delete(f"/obliterations/{made}")) == (409, "conflict")
    assert slug(request(project, asset, versions=[1])) == (404, "not-found")


def test_a_removal_that_fails_halfway_is_done_again_and_never_taken_back(project):
    """As on a disk that cannot be written to: what is left of the content must not be promised to anybody."""
    for name in ("a", "b"):
        project.add(f"Keys/{name}.pem", os.urandom(64))
    keys = dict(sorted(project.heads().items(), key=lambda head: head[1][1]))
    (_, first), (_, last) = keys.values()
    project.submit([{"action": "delete", "path": path, "base_version": 1} for path in keys])
    body = {"pattern": "Keys/**", "reason": "leaked", "dry_run": False}
    made = project.http.post(f"/projects/{project.id}/obliterations", json=body).json()["obliteration_id"]
    grace_over(project)
    stuck = object_path(project.api.store, last)
    content = stuck.read_bytes()
    stuck.unlink()
    stuck.mkdir()
    assert slug(project.http.post(f"/obliterations/{made}/complete")) == (503, "unavailable")
    assert not object_path(project.api.store, first).exists()
    assert project.http.get(f"/obliterations/{made}").json()["status"] == "condemned"
    assert slug(project.http.delete(f"/obliterations/{made}")) == (409, "conflict")
    for sha256 in (first, last):
        assert slug(project.http.get(f"/projects/{project.id}/objects/{sha256}")) == (410, "obliterated")
    stuck.rmdir()
    stuck.write_bytes(content)
    done = project.http.post(f"/obliterations/{made}/complete").json()
    assert (done["status"], stuck.exists()) == ("completed", False)
    with psycopg.connect(project.api.owner_url) as owner:
        hashes = [bytes.fromhex(sha256) for sha256 in (first, last)]
        left = owner.execute("SELECT count(*) FROM blob_tombstones WHERE sha256 = ANY (%s)", (hashes,)).fetchone()
    assert left == (0,)


def test_it_is_taken_back_within_the_time_of_grace(project, leaked):
    asset, sha256 = leaked
    made = request(project, asset, versions=[1], dry_run=False).json()["obliteration_id"]
    assert project.http.delete(f"/obliterations/{made}").json()["status"] == "cancelled"
    content = project.http.get(f"/assets/{asset}/versions/1/content").content
    assert hashlib.sha256(content).hexdigest() == sha256
    grace_over(project)
    assert slug(project.http.post(f"/obliterations/{made}/complete")) == (409, "conflict")


def test_what_a_branch_shows_does_not_go(project, leaked):
    asset, _ = leaked
    response = request(project, asset)
    assert slug(response) == (409, "still-shown")
    assert response.json()["errors"][0]["detail"] == "key.pem version 2 on main"
    project.http.post("/branches", json={"project_id": project.id, "name": "old", "parent_at": 1})
    assert slug(request(project, asset, versions=[1])) == (409, "still-shown")


def test_what_others_refer_to_stays_in_the_store(project, leaked, new_project):
    asset, sha256 = leaked
    content = project.http.get(f"/assets/{asset}/versions/1/content").content
    other = new_project()
    other.add("copy.pem", content)
    plan = request(project, asset, versions=[1], dry_run=False).json()
    assert (plan["objects"], plan["objects_removed"]) == (1, 0)
    grace_over(project)
    assert project.http.post(f"/obliterations/{plan['obliteration_id']}/complete").status_code == 200
    assert slug(project.http.get(f"/projects/{project.id}/objects/{sha256}")) == (410, "obliterated")
    assert other.http.get(f"/projects/{other.id}/objects/{sha256}").content == content


def test_obliterated_content_can_come_again(project, leaked):
    asset, sha256 = leaked
    content = project.http.get(f"/assets/{asset}/versions/1/content").content
    made = request(project, asset, versions=[1], dry_run=False).json()["obliteration_id"]
    grace_over(project)
    project.http.post(f"/obliterations/{made}/complete")
    missing = project.http.post(f"/projects/{project.id}/objects/missing", json={"sha256": [sha256]})
    assert missing.json() == {"missing": [sha256]}
    project.add("again.pem", content)
    assert project.http.get(f"/projects/{project.id}/objects/{sha256}").content == content
    assert slug(project.http.get(f"/assets/{asset}/versions/1/content")) == (410, "obliterated")


def test_a_pattern_takes_every_match(project):
    for name in ("a", "b"):
        project.add(f"Secrets/{name}.key", os.urandom(32))
    project.add("Content/c.key", os.urandom(32))
    project.submit([{"action": "delete", "path": f"Secrets/{name}.key", "base_version": 1} for name in ("a", "b")])
    body = {"pattern": "Secrets/**", "reason": "keys"}
    assert project.http.post(f"/projects/{project.id}/obliterations", json=body).json()["versions"] == 2


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"pattern": "a", "asset_id": "00000000-0000-0000-0000-000000000000"},
        {"pattern": "a", "versions": [1]},
        {"pattern": "//"},
    ],
)
def test_a_choice_that_is_none_is_refused(project, body):
    response = project.http.post(f"/projects/{project.id}/obliterations", json={**body, "reason": "x"})
    assert slug(response) == (422, "invalid")


def test_only_a_studio_admin_obliterates(project, leaked):
    asset, _ = leaked
    owner = project.member("owner")
    assert slug(request(project, asset, owner.http, versions=[1])) == (403, "forbidden")
    assert slug(request(project, asset, project.api.user().http, versions=[1])) == (404, "not-found")
    made = request(project, asset, versions=[1], dry_run=False).json()["obliteration_id"]
    for response in (owner.http.delete(f"/obliterations/{made}"), owner.http.post(f"/obliterations/{made}/complete")):
        assert slug(response) == (403, "forbidden")
    assert owner.http.get(f"/obliterations/{made}").json()["reason"] == "a leaked key"
    assert project.api.user().http.get(f"/obliterations/{made}").status_code == 404
