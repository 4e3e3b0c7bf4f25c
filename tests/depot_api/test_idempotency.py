"""Idempotency-Key: every route that creates takes one, and the same request twice is the same result."""

import psycopg
import pytest

# An API token is shown once and kept nowhere, so no answer can be given twice. The others are as often as one likes:
# content goes by its hash, one's own lock is renewed, a merge has one job of each type, and an upload has its base.
WITHOUT_KEY = {
    "/auth/tokens",
    "/projects/{project_id}/objects/pack",
    "/locks",
    "/locks/batch",
    "/branch-merges/{merge_id}/jobs",
    "/assets/{asset_id}/versions/upload",
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
    assert without == WITHOUT_KEY & creating.keys()
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
