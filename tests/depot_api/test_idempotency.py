"""Idempotency-Key: every route that creates takes one, and the same request twice is the same result."""

import httpx
import psycopg
import pytest

# As often as one likes: content goes by its hash, one's own lock is renewed, and a merge has one job of each type.
WITHOUT_KEY = {
    "/projects/{project_id}/objects/pack",
    "/locks",
    "/locks/batch",
    "/branch-merges/{merge_id}/jobs",
}


def test_every_route_that_creates_takes_a_key(project):
    paths = project.http.get("/openapi.json").json()["paths"]
    creating = {
        path: methods["post"]
        for path, methods in paths.items()
        if "201" in methods.get("post", {}).get("responses", ())
    }
    without = {
        path
        for path, route in creating.items()
        if "Idempotency-Key" not in [parameter["name"] for parameter in route.get("parameters", ())]
    }
    assert without == WITHOUT_KEY
    assert {"/projects", "/users", "/branches", "/changelists/{changelist_id}/revert"} <= creating.keys()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/changelists/{changelist}/revert", {}),
        ("/changelists/{changelist}/comments", {"body": "x"}),
        ("/projects/{project}/webhooks", {"url": "https://example.com"}),
        ("/branches", {"name": "side"}),
        ("/assets", {"path": "new"}),
        ("/assets/{asset}/versions", {"base_version": 1}),
        ("/assets/{asset}/move", {"base_version": 1, "to_path": "elsewhere"}),
        ("/projects/{project}/archive", {"reason": "done"}),
    ],
)
def test_the_same_request_twice_is_the_same_result(project, path, body):
    project.add("a", b"1")
    changelist = project.http.get(f"/projects/{project.id}/changelists").json()["items"][0]["id"]
    (asset,) = project.http.get("/assets", params={"project_id": project.id}).json()["items"]
    url = path.format(changelist=changelist, project=project.id, asset=asset["id"])
    if path in ("/branches", "/assets"):
        body = {"project_id": project.id, **body}
    if path.endswith("/versions"):
        body = {"sha256": project.put(b"2"), **body}
    key = {"Idempotency-Key": f"the-same-{project.id}"}
    first, second = (project.http.post(url, json=body, headers=key) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 201), first.text + second.text
    assert first.json() == second.json()
    other = project.http.post("/changelists", json={"project_id": project.id}, headers=key)
    assert other.json()["type"].endswith("idempotency-key-reused")


def test_a_project_and_a_user_are_made_once(api, project):
    name = f"{project.name}-made"
    for path, body in (("/projects", {"name": name}), ("/users", {"username": name, "password": "long-enough-1"})):
        key = {"Idempotency-Key": f"{path}-{name}"}
        first, second = (project.http.post(path, json=body, headers=key) for _ in range(2))
        assert (first.status_code, second.json()) == (201, first.json())


def test_an_upload_twice_is_one_version(project):
    asset = project.http.post("/assets", json={"project_id": project.id, "path": "a"}).json()["id"]
    key = {"Idempotency-Key": f"upload-{project.id}"}

    def upload(content: bytes) -> httpx.Response:
        return project.http.post(f"/assets/{asset}/versions/upload", files={"file": content}, headers=key)

    first, second, other = upload(b"1"), upload(b"1"), upload(b"2")
    assert (first.status_code, second.status_code) == (201, 201), second.text
    assert first.json() == second.json()
    assert other.json()["type"].endswith("idempotency-key-reused")
    assert project.http.get(f"/assets/{asset}").json()["last_version"] == 1


def test_a_key_stands_for_what_was_asked_and_not_for_what_it_meant(project):
    """What was last there, and which branch is meant, may be another thing when the request comes again."""
    project.add("a", b"1")
    (asset,) = project.http.get("/assets", params={"project_id": project.id}).json()["items"]
    url = f"/assets/{asset['id']}"
    assert project.http.post(f"{url}/delete", json={"base_version": 1}).status_code == 200
    key = {"Idempotency-Key": f"restore-{project.id}"}
    first = project.http.post(f"{url}/restore", json={}, headers=key)
    project.submit([{"action": "edit", "path": "a", "base_version": 2, "sha256": project.put(b"2")}])
    second = project.http.post(f"{url}/restore", json={}, headers=key)
    assert (first.status_code, second.json()) == (201, first.json())


def test_an_obliteration_and_an_unshelving_are_done_once(project):
    project.add("a", b"1")
    project.submit([{"action": "edit", "path": "a", "base_version": 1, "sha256": project.put(b"2")}])
    (asset,) = project.http.get("/assets", params={"project_id": project.id}).json()["items"]
    item = {"action": "add", "path": "b", "sha256": project.put(b"3")}
    shelf = {"project_id": project.id, "branch_id": project.main, "items": [item]}
    shelved = project.http.post("/shelves", json=shelf).json()["id"]
    obliterate = {"reason": "x", "asset_id": asset["id"], "versions": [1], "dry_run": False}
    for url, body in (
        (f"/projects/{project.id}/obliterations", obliterate),
        (f"/shelves/{shelved}/unshelve", {"changelist_id": project.open([])}),
    ):
        key = {"Idempotency-Key": url}
        first, second = (project.http.post(url, json=body, headers=key) for _ in range(2))
        assert (first.status_code, second.json()) == (200, first.json())


def test_a_token_is_told_again_though_nothing_keeps_it(api):
    user, body = api.user(), {"name": "again", "scope": "read", "expires_in_days": 1}
    key = {"Idempotency-Key": f"token-{user.id}"}
    first, second = (user.http.post("/auth/tokens", json=body, headers=key) for _ in range(2))
    assert (first.status_code, second.json()) == (201, first.json())
    assert [one["name"] for one in user.http.get("/auth/tokens").json()["items"]] == ["test", "again"]
    with api.client(second.json()["token"]) as http:
        assert http.get("/auth/me").json()["username"] == user.name
    with psycopg.connect(api.owner_url) as owner:
        ((kept,),) = owner.execute("SELECT response::text FROM idempotency_keys WHERE user_id = %s", (user.id,))
        assert first.json()["token"] not in kept
        owner.execute("DELETE FROM idempotency_keys WHERE user_id = %s", (user.id,))
    late = user.http.post("/auth/tokens", json=body, headers=key)
    assert (late.status_code, late.json()["type"].rsplit(":", 1)[1]) == (422, "idempotency-key-reused")


def test_a_token_that_was_revoked_is_not_told_again(api):
    user, body = api.user(), {"name": "gone", "scope": "read", "expires_in_days": 1}
    key = {"Idempotency-Key": f"token-{user.id}"}
    made = user.http.post("/auth/tokens", json=body, headers=key).json()
    assert user.http.delete(f"/auth/tokens/{made['id']}").status_code == 204
    again = user.http.post("/auth/tokens", json=body, headers=key)
    assert (again.status_code, made["id"] in again.json()["detail"]) == (409, True)


def test_old_keys_go(api, project):
    key = {"Idempotency-Key": f"old-{project.id}"}
    body = {"project_id": project.id}
    first = project.http.post("/changelists", json=body, headers=key).json()["id"]
    with psycopg.connect(api.owner_url) as owner:
        owner.execute("SELECT expire_idempotency_keys(interval '7 days')")
        assert project.http.post("/changelists", json=body, headers=key).json()["id"] == first
        owner.execute(
            "UPDATE idempotency_keys SET created_at = now() - interval '8 days' WHERE key = %s", (f"old-{project.id}",)
        )
    with psycopg.connect(api.service_url) as service:
        service.execute("SELECT expire_idempotency_keys(interval '7 days')")
    assert project.http.post("/changelists", json=body, headers=key).json()["id"] != first
