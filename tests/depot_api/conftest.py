"""The real service, as a process, on a real database; and people with roles in it."""

import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from depot_api.identity import queries
from depot_api.identity.models import TokenScope
from depot_api.identity.passwords import hash_password
from depot_api.identity.tokens import hash_api_token, new_api_token
from depot_ops.local.ports import any_free
from depot_ops.postgres.cluster import Cluster
from tests.forked import Forked, Program, Streams

ADMIN_PASSWORD = "admin-password-1"
START_TIMEOUT_SECONDS = 90
JWT_SECRET = "a secret of tests, 32 characters or more"


@dataclass
class Api:
    """A running service, and its admin."""

    url: str
    token: str
    password: str
    store: Path
    owner_url: str
    service_url: str
    process: Forked = field(repr=False)

    def client(self, token: str | None = None) -> httpx.Client:
        headers = {"Authorization": f"Bearer {token or self.token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30)

    def user(self, studio_role: str = "viewer") -> "User":
        """A new user with an API token."""
        name, token = f"user-{secrets.token_hex(4)}", new_api_token()
        with psycopg.connect(self.owner_url) as owner:
            row = owner.execute(
                "INSERT INTO users (username, studio_role) VALUES (%s, %s) RETURNING id", (name, studio_role)
            ).fetchone()
            assert row is not None
            owner.execute(
                """INSERT INTO api_tokens (user_id, name, token_sha256, scope, expires_at)
                   VALUES (%s, 'test', %s, 'admin', now() + interval '1 day')""",
                (row[0], hash_api_token(token)),
            )
        return User(str(row[0]), name, token, self.client(token))


@dataclass
class User:
    id: str
    name: str
    token: str
    http: httpx.Client


@dataclass
class Project:
    """A project of the admin's, and shortcuts for what tests do in it."""

    api: Api
    http: httpx.Client
    id: str
    name: str
    main: str

    def put(self, content: bytes) -> str:
        """Send content; its SHA-256."""
        sha256 = hashlib.sha256(content).hexdigest()
        response = self.http.put(f"/projects/{self.id}/objects/{sha256}", content=content)
        assert response.status_code == 201, response.text
        return sha256

    def open(self, items: list[dict[str, Any]], branch: str | None = None, http: httpx.Client | None = None) -> str:
        """A changelist with these items; its id."""
        http = http or self.http
        made = http.post("/changelists", json={"project_id": self.id, "branch_id": branch or self.main})
        assert made.status_code == 201, made.text
        changelist: str = made.json()["id"]
        if items:
            response = http.post(f"/changelists/{changelist}/items", json={"items": items})
            assert response.status_code == 200, response.text
        return changelist

    def submit(self, items: list[dict[str, Any]], branch: str | None = None) -> int:
        """Submit these items; the changelist's number."""
        response = self.http.post(f"/changelists/{self.open(items, branch)}/submit")
        assert response.status_code == 200, response.text
        number: int = response.json()["number"]
        return number

    def add(self, path: str, content: bytes, branch: str | None = None) -> int:
        return self.submit([{"action": "add", "path": path, "sha256": self.put(content)}], branch)

    def heads(self, branch: str | None = None, at: int | None = None) -> dict[str, tuple[int, str]]:
        """path → (version, sha256)"""
        query = {} if at is None else {"at": at}
        accept = {"Accept": "application/x-ndjson"}
        response = self.http.get(f"/branches/{branch or self.main}/manifest", params=query, headers=accept)
        assert response.status_code == 200, response.text
        _, *rows, last = [json.loads(line) for line in response.text.splitlines()]
        assert last == {"rows": len(rows)}
        return {row["path"]: (row["version"], row["sha256"]) for row in rows}

    def member(self, role: str) -> User:
        user = self.api.user()
        response = self.http.post(f"/projects/{self.id}/members", json={"username": user.name, "role": role})
        assert response.status_code == 200, response.text
        return user


@contextmanager
def running_api(
    cluster: Cluster, template: str, directory: Path, store: Path | None = None, database: str | None = None
) -> Iterator[Api]:
    """Start the service on a database of its own, and stop it. A service that does not stop cleanly fails the test."""
    name = database or f"api_{secrets.token_hex(6)}"
    if database is None:
        with psycopg.connect(cluster.url(), autocommit=True) as admin:
            create = sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER depot_owner STRATEGY file_copy")
            admin.execute(create.format(sql.Identifier(name), sql.Identifier(template)))
    owner_url, service_url = cluster.url(name, "depot_owner"), cluster.url(name, "depot_service")
    environment = {
        **os.environ,
        "DATABASE_URL": service_url,
        "JWT_SECRET": JWT_SECRET,
        "ASSET_STORAGE_PATH": str(store or directory / "store"),
        "DB_POOL_MAX": "6",
    }
    token = _make_admin(owner_url)
    port = any_free()
    log = directory / "api.log"
    process = Forked(Program.SERVICE, ["--port", str(port)], environment, Streams(Path(os.devnull), log, log))
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(url, process, log)
        root = store or directory / "store"
        yield Api(url, token, ADMIN_PASSWORD, root, owner_url, service_url, process)
    finally:
        process.terminate()
        returncode = process.wait(30)
    assert returncode in (0, -15, -9), log.read_text()[-2000:]


def _make_admin(owner_url: str) -> str:
    """As `python -m depot_api.identity` does it; an API token of the admin's."""
    token = new_api_token()
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    with psycopg.connect(owner_url, row_factory=dict_row) as owner:
        if not queries.admin_exists(owner):
            queries.insert_admin(owner, "admin", _admin_password_hash())
        assert queries.insert_token(owner, "admin", "tests", hash_api_token(token), TokenScope.ADMIN, tomorrow)
    return token


@cache
def _admin_password_hash() -> str:
    return hash_password(ADMIN_PASSWORD)


def _wait_until_ready(url: str, process: Forked, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            if httpx.get(f"{url}/health", timeout=6).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)


@pytest.fixture(scope="session")
def api(cluster: Cluster, depot_template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """One service for all tests of a worker; each makes projects of its own."""
    with running_api(cluster, depot_template, tmp_path_factory.mktemp("api")) as running:
        yield running


@pytest.fixture
def own_api(cluster: Cluster, depot_template: str, tmp_path: Path) -> Iterator[Api]:
    """A service for a test that breaks it."""
    with running_api(cluster, depot_template, tmp_path) as running:
        yield running


def make_project(api: Api) -> Project:
    http = api.client()
    name = f"project-{secrets.token_hex(4)}"
    response = http.post("/projects", json={"name": name})
    assert response.status_code == 201, response.text
    return Project(api, http, response.json()["id"], name, response.json()["default_branch_id"])


@pytest.fixture
def project(api: Api) -> Iterator[Project]:
    made = make_project(api)
    yield made
    made.http.close()


@pytest.fixture
def new_project(api: Api) -> Callable[[], Project]:
    return lambda: make_project(api)


@pytest.fixture(scope="session")
def running_api_factory() -> tuple[Any, Any]:
    """For a test that stops and starts the service itself."""
    return make_project, running_api
