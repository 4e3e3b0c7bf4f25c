"""Bad input gets a 4xx problem, never a 500."""

import time

import psycopg
import pytest
from psycopg import sql

from depot_api.paths import broken_rule, path_key

NIL = "00000000-0000-0000-0000-000000000000"
JSON = {"Content-Type": "application/json"}

BODIES = [
    ("POST", "/projects", b"{not json"),
    ("POST", "/projects", b"[]"),
    ("POST", "/projects", b'{"name": "a", "unknown": 1}'),
    ("POST", "/projects", b'{"name": 5}'),
    ("POST", "/projects", b'{"name": ""}'),
    ("POST", "/projects", b'{"name": "a\\u0000b"}'),
    ("POST", "/projects", b'{"name": "a\\ud800b"}'),
    ("POST", "/projects", b"\xff\xfe"),
    ("POST", "/projects", b"[" * 100_000),
    ("POST", "/projects", b'{"name": "' + b"x" * 10_000_000 + b'"}'),
    ("POST", "/auth/token", b"{}"),
    ("POST", "/auth/token", b'{"username": "a\\ud800", "password": "b"}'),
    ("POST", "/branches", b'{"project_id": "nonsense", "name": "a"}'),
    ("POST", "/branches", b'{"project_id": "%s", "name": "a", "parent_at": "1"}' % NIL.encode()),
    ("POST", "/branches", b'{"project_id": "%s", "name": "a", "parent_at": 1e400}' % NIL.encode()),
    ("POST", "/changelists", b'{"project_id": "%s"}' % NIL.encode()),
    ("POST", f"/changelists/{NIL}/items", b'{"items": []}'),
    ("PATCH", f"/projects/{NIL}", b'{"quota_bytes": 1e400}'),
    ("POST", f"/projects/{NIL}/archive", b'{"reason": "\\u0000"}'),
    ("POST", f"/projects/{NIL}/archive", b'{"reason": "not there"}'),
    ("POST", "/users", b'{"username": "a\\u0000", "password": "long-enough-1"}'),
    ("POST", "/users", b'{"username": "a", "password": "long-enough-\\ud800"}'),
    ("PATCH", f"/users/{NIL}", b'{"display_name": "\\ud800"}'),
    ("PATCH", f"/users/{NIL}", b'{"is_active": false}'),
    ("POST", f"/users/{NIL}/password", b'{"password": "long-enough-1"}'),
    ("POST", "/auth/password", b'{"current_password": "\\u0000", "new_password": "long-enough-1"}'),
    ("POST", "/auth/tokens", b'{"name": "a", "scope": "read", "expires_in_days": 1e400}'),
    ("POST", "/auth/tokens", b'{"name": "a\\ud800", "scope": "read", "expires_in_days": 1}'),
    ("POST", f"/changelists/{NIL}/submit", b""),
    ("POST", "/assets", b'{"project_id": "%s", "path": "a", "metadata": {"a": "\\u0000"}}' % NIL.encode()),
]
URLS = [
    "/projects?limit=0",
    "/projects?limit=1001",
    "/projects?limit=x",
    "/projects?cursor=%00",
    "/projects?cursor=!!!",
    "/projects?cursor=WzFd",
    "/projects?name=%00",
    "/projects/not-a-uuid",
    f"/projects/{NIL}",
    f"/branches/{NIL}/manifest?at=-1",
    f"/branches/{NIL}/manifest?at=99999999999999999999",
    f"/assets/{NIL}/versions/0/content",
    f"/assets/{NIL}/versions/99999999999/content",
    f"/assets?project_id={NIL}&prefix=%00",
    f"/projects/{NIL}/objects/zz",
    "/users?cursor=WzFd",
    "/users?name=%00",
    f"/users/{NIL}",
    f"/users/{NIL}/tokens",
    "/auth/tokens?cursor=WyJ4Il0",
    f"/projects/{NIL}/archives?cursor=WyJ4Il0",
    f"/projects/{NIL}/storage",
    f"/projects/{NIL}/storage/snapshots?cursor=WyJ4Il0",
    "/no/such/route",
]
PATHS = [
    "/absolute",
    "a/../b",
    "a//b",
    "a/",
    "./a",
    "nul",
    "Content/COM1.txt",
    "trailing.",
    "dir /a",
    "a\x00b",
    "a\\b",
    "a:b",
    "x" * 1025,
    "tab\tbed",
    "a/" + "x" * 256,
    "a/" + "ä" * 128 + "/b",
    "a/.depot/b",
    ".DEPOT",
    "COM\u00b9.txt",
    "lpt\u00b3",
    "CON .txt",
    "a/Aux  ",
    "CONIN$",
    "conout$.log/a",
]
# Close to those, and allowed.
GOOD_PATHS = [
    "a/" + "x" * 255,
    "ä" * 127,
    ".depotignore",
    "a.depot",
    "com1a",
    "CONIN",
    "com\u2074",
    "a CON",
    "con-1.txt",
]


def is_problem(response) -> bool:
    return response.headers["content-type"] == "application/problem+json" and response.json()["status"] == (
        response.status_code
    )


@pytest.mark.parametrize(("method", "path", "body"), BODIES, ids=range(len(BODIES)))
def test_bodies(project, method, path, body):
    response = project.http.request(method, path, content=body, headers=JSON)
    assert 400 <= response.status_code < 500, response.text
    assert is_problem(response)


@pytest.mark.parametrize("url", URLS)
def test_urls(project, url):
    response = project.http.get(url)
    assert 400 <= response.status_code < 500, response.text
    assert is_problem(response)


def test_a_large_body_is_refused_by_its_size(project):
    response = project.http.post("/projects", content=b" " * 10_000_000, headers=JSON)
    assert response.status_code == 413


def test_a_method_that_is_not_there(project):
    assert project.http.delete("/projects").status_code == 405


@pytest.mark.parametrize("path", PATHS)
def test_paths(project, path):
    content = project.put(b"x")
    changelist = project.open([])
    item = {"action": "add", "path": path, "sha256": content}
    response = project.http.post(f"/changelists/{changelist}/items", json={"items": [item]})
    assert response.status_code == 422, response.text
    assert is_problem(response)
    assert response.json()["errors"][0]["pointer"].startswith("/items/0/path")


INSERT_ASSET = """
    INSERT INTO assets (project_id, path_key, path, created_by)
    SELECT id, %(key)s, %(path)s, created_by FROM projects WHERE id = %(project)s RETURNING id::text
"""


def new_asset(project, path):
    return {"key": path_key(path), "path": path, "project": project.id}


@pytest.fixture
def service(api, project):
    with psycopg.connect(api.service_url) as connection:
        connection.execute("SELECT set_app_user(%s)", (project.http.get("/auth/me").json()["id"],))
        yield connection


@pytest.mark.parametrize("path", PATHS)
def test_the_database_refuses_the_same_paths(project, service, path):
    with pytest.raises((psycopg.errors.CheckViolation, psycopg.DataError)):
        service.execute(INSERT_ASSET, new_asset(project, path))


@pytest.mark.parametrize("path", GOOD_PATHS)
def test_paths_that_are_allowed(project, service, path):
    assert broken_rule(path) is None
    service.execute(INSERT_ASSET, new_asset(project, path))


@pytest.mark.parametrize("path", ["a/.depot/b", "CON .txt", "a/" + "x" * 256])
def test_a_path_from_before_a_rule_is_changed_moved_away_and_deleted(api, project, path):
    """And locked, shelved and talked about by its name; only a new one may not be such."""
    with psycopg.connect(api.owner_url) as owner:
        ((asset,),) = owner.execute(INSERT_ASSET, new_asset(project, path))
    content = project.put(b"x")
    first = project.http.post(f"/assets/{asset}/versions", json={"sha256": content})
    assert first.status_code == 201, first.text
    item = {"path": path, "base_version": 1, "sha256": content}
    shelf = {"project_id": project.id, "branch_id": project.main, "items": [{"action": "edit", **item}]}
    assert project.http.post("/shelves", json=shelf).status_code == 201
    lock = {"project_id": project.id, "branch_id": project.main, "path": path, "base_version": 1}
    assert project.http.post("/locks", json=lock).status_code == 201
    changelist = project.open([{"action": "edit", **item}])
    comment = project.http.post(f"/changelists/{changelist}/comments", json={"body": "x", "path": path})
    assert comment.status_code == 201
    project.submit([{"action": "move", "moved_from": path, **item, "path": "moved"}])
    assert project.heads() == {"moved": (1, content)}
    assert project.http.post(f"/assets/{asset}/restore", json={}).status_code == 201
    project.submit([{"action": "delete", "path": path, "base_version": 2}])
    back = {"action": "move", "moved_from": "moved", "path": path, "base_version": 1, "sha256": content}
    refused = project.http.post(f"/changelists/{project.open([])}/items", json={"items": [back]})
    assert refused.json()["errors"][0]["pointer"] == "/items/0/path"


@pytest.mark.parametrize(
    "item",
    [
        {"action": "add", "path": "a"},
        {"action": "add", "path": "a", "sha256": "00" * 32, "base_version": 1},
        {"action": "edit", "path": "a", "sha256": "00" * 32},
        {"action": "edit", "path": "a", "sha256": "00" * 32, "base_version": "1"},
        {"action": "edit", "path": "a", "sha256": "00" * 32, "base_version": 2**31},
        {"action": "delete", "path": "a", "base_version": 1, "sha256": "00" * 32},
        {"action": "move", "path": "a", "base_version": 1, "sha256": "00" * 32},
        {"action": "explode", "path": "a"},
        {"action": "add", "path": "a", "sha256": "GG" * 32},
    ],
)
def test_items_that_do_not_fit_their_action(project, item):
    changelist = project.open([])
    response = project.http.post(f"/changelists/{changelist}/items", json={"items": [item]})
    assert response.status_code == 422
    assert is_problem(response)


def test_a_database_that_is_gone_and_comes_back(cluster, own_api):
    name = own_api.owner_url.rsplit("/", 1)[1]
    allow = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
    with own_api.client() as http, psycopg.connect(cluster.url(), autocommit=True) as admin:
        assert http.get("/projects").status_code == 200
        admin.execute(allow.format(sql.Identifier(name), sql.SQL("false")))
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
        response = http.get("/projects")
        assert (response.status_code, is_problem(response)) == (503, True)
        assert int(response.headers["retry-after"]) > 0
        health = http.get("/health")
        assert (health.status_code, health.json()["checks"]["database"]["status"]) == (503, "unavailable")
        assert http.get("/health/live").status_code == 200
        admin.execute(allow.format(sql.Identifier(name), sql.SQL("true")))
        deadline = time.monotonic() + 30
        while http.get("/projects").status_code != 200:
            assert time.monotonic() < deadline, "it does not recover by itself"
            time.sleep(0.1)
