"""Changelists while they are open: who changes them, validations, reverts; and undoing a submitted one."""

import secrets
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg import errors

from depot_api.identity.tokens import hash_api_token, new_api_token

ANY = {"If-Match": "*"}


def slug(response):
    return response.status_code, response.json()["type"].removeprefix("urn:asset-depot:problem:")


def pipeline_of(project, user=None):
    """A client with a token of the scope pipeline, of this user or of a contributor of its own."""
    user, token = user or project.member("contributor"), new_api_token()
    with psycopg.connect(project.api.owner_url) as owner:
        owner.execute(
            """INSERT INTO api_tokens (user_id, name, token_sha256, scope, expires_at)
               VALUES (%s, %s, %s, 'pipeline', now() + interval '1 day')""",
            (user.id, secrets.token_hex(4), hash_api_token(token)),
        )
    return project.api.client(token)


def test_an_overwrite_names_what_it_saw(project):
    changelist = project.open([])
    url = f"/changelists/{changelist}"
    etag = project.http.get(url).headers["etag"]
    assert slug(project.http.patch(url, json={"description": "x"})) == (428, "precondition-required")
    assert slug(project.http.delete(url)) == (428, "precondition-required")
    changed = project.http.patch(url, json={"description": "seen"}, headers={"If-Match": etag})
    assert (changed.status_code, changed.json()["description"]) == (200, "seen")
    assert slug(project.http.patch(url, json={"description": "late"}, headers={"If-Match": etag})) == (
        412,
        "stale-precondition",
    )
    assert project.http.delete(url, headers={"If-Match": changed.headers["etag"]}).status_code == 204
    assert slug(project.http.patch(url, json={"branch_id": project.main}, headers=ANY)) == (409, "changelist-closed")


def test_only_an_admin_corrects_a_submitted_description_and_it_is_audited(project):
    author = project.member("contributor")
    changelist = project.open([{"action": "delete", "path": "none", "base_version": 1}], http=author.http)
    author.http.post(f"/changelists/{changelist}/items/revert", json={"paths": ["none"]})
    content = author.http.post(f"/projects/{project.id}/objects/missing", json={"sha256": ["0" * 64]})
    assert content.json() == {"missing": ["0" * 64]}
    sha256 = project.put(b"mine")
    item = {"action": "add", "path": "described", "sha256": sha256}
    changelist = project.open([item])
    assert project.http.post(f"/changelists/{changelist}/submit").status_code == 200
    url = f"/changelists/{changelist}"
    assert author.http.patch(url, json={"description": "no"}, headers=ANY).status_code == 403
    corrected = project.http.patch(url, json={"description": "put right"}, headers=ANY)
    assert (corrected.status_code, corrected.json()["status"]) == (200, "submitted")
    with psycopg.connect(project.api.owner_url) as owner:
        row = owner.execute(
            """SELECT before ->> 'description', after ->> 'description' FROM audit_log
               WHERE table_name = 'changelists' AND after ->> 'id' = %s ORDER BY id DESC LIMIT 1""",
            (changelist,),
        ).fetchone()
    assert row == ("", "put right")


def test_items_are_reverted_by_path_in_any_case(project):
    sha256 = project.put(b"x")
    changelist = project.open([{"action": "add", "path": f"D/{n}", "sha256": sha256} for n in range(3)])
    url = f"/changelists/{changelist}/items/revert"
    assert project.http.post(url, json={"paths": ["d/0", "D/2", "never"]}).json() == {"items_count": 1}
    assert [i["path"] for i in project.http.get(f"/changelists/{changelist}/items").json()["items"]] == ["D/1"]
    assert project.member("contributor").http.post(url, json={"paths": ["D/1"]}).status_code == 403


def test_items_of_another_author_are_closed_in_the_database_too(project):
    changelist = project.open([{"action": "add", "path": "mine", "sha256": project.put(b"m")}])
    colleague = project.member("contributor")
    with psycopg.connect(project.api.service_url) as service:
        service.execute("SELECT set_app_user(%s)", (colleague.id,))
        with pytest.raises(errors.InsufficientPrivilege):
            service.execute("DELETE FROM changelist_items WHERE changelist_id = %s", (changelist,))


def test_a_branch_that_asks_for_validation_takes_what_a_pipeline_passed(project):
    project.http.patch(f"/branches/{project.main}", json={"require_validation": True})
    sha256, other = project.put(b"good"), project.put(b"other")
    changelist = project.open([{"action": "add", "path": "a", "sha256": sha256}])
    url, pipeline = f"/changelists/{changelist}/validations", pipeline_of(project)
    assert slug(project.http.post(f"/changelists/{changelist}/submit")) == (409, "validation-required")
    passed = {"items": [{"path": "a", "sha256": sha256, "status": "passed", "report": {"tool": "lint", "warnings": 0}}]}
    assert slug(project.http.post(url, json=passed)) == (403, "forbidden")
    assert pipeline.post("/changelists", json={"project_id": project.id}).status_code == 403
    late = {"items": [{"path": "a", "sha256": other, "status": "passed"}]}
    assert slug(pipeline.post(url, json=late)) == (409, "conflict")
    failed = {"items": [{"path": "a", "sha256": sha256, "status": "failed", "report": {"error": "no collision mesh"}}]}
    assert pipeline.post(url, json=failed).json() == {"pending": 0, "passed": 0, "failed": 1}
    (item,) = project.http.get(f"/changelists/{changelist}/items").json()["items"]
    assert (item["validation"], item["validation_report"]) == ("failed", {"error": "no collision mesh"})
    assert slug(project.http.post(f"/changelists/{changelist}/submit")) == (409, "validation-required")
    assert pipeline.post(url, json=passed).status_code == 200
    project.http.post(
        f"/changelists/{changelist}/items", json={"items": [{"action": "add", "path": "a", "sha256": other}]}
    )
    assert slug(project.http.post(f"/changelists/{changelist}/submit")) == (409, "validation-required")
    pipeline.post(url, json={"items": [{"path": "a", "sha256": other, "status": "passed"}]})
    assert project.http.post(f"/changelists/{changelist}/submit").status_code == 200
    assert slug(pipeline.post(url, json=passed)) == (409, "changelist-closed")


def test_nobody_validates_their_own_work(project):
    project.http.patch(f"/branches/{project.main}", json={"require_validation": True})
    author = project.member("contributor")
    changelist = project.open([{"action": "delete", "path": "a", "base_version": 1}], http=author.http)
    passed = {"items": [{"path": "a", "sha256": None, "status": "passed"}]}
    refused = pipeline_of(project, author).post(f"/changelists/{changelist}/validations", json=passed)
    assert (slug(refused), "their own" in refused.json()["detail"]) == ((403, "forbidden"), True)
    with psycopg.connect(project.api.service_url) as service:
        service.execute("SELECT set_app_user(%s, '', 'pipeline')", (author.id,))
        with pytest.raises(errors.InsufficientPrivilege):
            service.execute("UPDATE changelist_items SET validation = 'passed' WHERE changelist_id = %s", (changelist,))
    assert pipeline_of(project).post(f"/changelists/{changelist}/validations", json=passed).status_code == 200


def test_nobody_but_a_pipeline_validates_in_the_database_either(project):
    changelist = project.open([{"action": "add", "path": "a", "sha256": project.put(b"a")}])
    with psycopg.connect(project.api.service_url) as service:
        service.execute("SELECT set_app_user(%s)", (project.http.get("/auth/me").json()["id"],))
        with pytest.raises(errors.InsufficientPrivilege):
            service.execute("UPDATE changelist_items SET validation = 'passed' WHERE changelist_id = %s", (changelist,))
        service.rollback()
        service.execute("SELECT set_app_user(%s)", (project.http.get("/auth/me").json()["id"],))
        with pytest.raises(errors.InsufficientPrivilege):
            service.execute(
                """INSERT INTO changelist_items (project_id, changelist_id, path_key, path, action, sha256, validation)
                   SELECT project_id, changelist_id, 'b', 'b', action, sha256, 'passed' FROM changelist_items
                   WHERE changelist_id = %s""",
                (changelist,),
            )


def test_a_submitted_changelist_is_undone_by_a_new_one(project):
    one, two, three = (project.put(content) for content in (b"one", b"two", b"three"))
    project.submit([{"action": "add", "path": p, "sha256": one} for p in ("edited", "deleted", "moved/from")])
    before = project.heads()
    changelist = project.open(
        [
            {"action": "edit", "path": "edited", "base_version": 1, "sha256": two},
            {"action": "delete", "path": "deleted", "base_version": 1},
            {"action": "move", "path": "moved/to", "moved_from": "moved/from", "base_version": 1, "sha256": one},
            {"action": "add", "path": "added", "sha256": three},
        ]
    )
    assert slug(project.http.post(f"/changelists/{changelist}/revert", json={})) == (409, "conflict")
    number = project.http.post(f"/changelists/{changelist}/submit").json()["number"]
    undo = project.http.post(f"/changelists/{changelist}/revert", json={})
    assert (undo.status_code, undo.json()["description"]) == (201, f"Revert changelist {number}: ")
    assert project.http.post(f"/changelists/{undo.json()['id']}/submit").status_code == 200
    assert {path: sha256 for path, (_, sha256) in project.heads().items()} == {
        path: sha256 for path, (_, sha256) in before.items()
    }


def test_what_has_changed_since_is_not_undone_silently(project):
    one, two = project.put(b"1"), project.put(b"2")
    project.submit([{"action": "add", "path": "a", "sha256": one}])
    edit = {"action": "edit", "path": "a", "base_version": 1, "sha256": two}
    changelist = project.open([edit])
    project.http.post(f"/changelists/{changelist}/submit")
    project.submit([{**edit, "base_version": 2, "sha256": one}])
    response = project.http.post(f"/changelists/{changelist}/revert", json={})
    assert slug(response) == (409, "stale-base")
    assert response.json()["stale"] == [{"path": "a", "base_version": 2, "head_version": 3, "head_changelist_no": 3}]


def test_items_are_not_taken_out_of_a_project_that_is_archived_meanwhile(project):
    changelist = project.open([{"action": "add", "path": "a", "sha256": project.put(b"1")}])
    with psycopg.connect(project.api.owner_url) as owner, ThreadPoolExecutor(1) as pool:
        owner.execute("SELECT FROM changelists WHERE id = %s FOR UPDATE", (changelist,))
        body = {"paths": ["a"]}
        waiting = pool.submit(project.http.post, f"/changelists/{changelist}/items/revert", json=body)
        wait_until_blocked(owner)
        owner.execute("UPDATE projects SET status = 'archived' WHERE id = %s", (project.id,))
        owner.commit()
        assert slug(waiting.result()) == (409, "project-archived")


def wait_until_blocked(owner) -> None:
    blocked = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid))"
    deadline = time.monotonic() + 30
    while owner.execute(blocked).fetchone() == (0,):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_integrated_version_names_what_it_was_made_from(project):
    branch = project.http.post("/branches", json={"project_id": project.id, "name": "task"}).json()["id"]
    sha256 = project.put(b"made on the branch")
    project.submit([{"action": "add", "path": "a", "sha256": sha256}], branch)
    item = {"action": "integrate", "path": "a", "sha256": sha256}
    lacking = project.http.post(f"/changelists/{project.open([])}/items", json={"items": [item]})
    assert slug(lacking) == (422, "invalid")
    project.submit([{**item, "source_branch_id": branch, "source_version": 1}])
    assert project.heads() == {"a": (2, sha256)}
    with psycopg.connect(project.api.owner_url) as owner:
        row = owner.execute(
            """SELECT action, source_branch_id::text, source_version FROM asset_versions
               WHERE project_id = %s AND number = 2""",
            (project.id,),
        ).fetchone()
    assert row == ("integrate", branch, 1)
