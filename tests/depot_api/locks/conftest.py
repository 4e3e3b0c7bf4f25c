"""People who lock, in the project of a test."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg
import pytest


@dataclass
class Artist:
    """A member of the test's project."""

    project: Any
    id: str
    name: str
    http: httpx.Client

    def lock(self, path: str, base: int | None, branch: str | None = None, **more: Any) -> httpx.Response:
        wanted = {"project_id": self.project.id, "branch_id": branch or self.project.main, "path": path}
        return self.http.post("/locks", json={**wanted, "base_version": base, **more})

    def locked(self, path: str, base: int | None, branch: str | None = None, **more: Any) -> dict[str, Any]:
        response = self.lock(path, base, branch, **more)
        assert response.status_code in (200, 201), response.text
        return response.json() | {"etag": response.headers["etag"]}

    def submit(self, *items: dict[str, Any], branch: str | None = None) -> httpx.Response:
        changelist = self.project.open(list(items), branch, http=self.http)
        return self.http.post(f"/changelists/{changelist}/submit")

    def edit(self, path: str, base: int, content: bytes, **more: Any) -> dict[str, Any]:
        return {"action": "edit", "path": path, "base_version": base, "sha256": self.put(content), **more}

    def put(self, content: bytes) -> str:
        """Sent by this artist: content is not taken from who has not got it."""
        return type(self.project)(self.project.api, self.http, self.project.id, "", self.project.main).put(content)


@pytest.fixture
def artist(project) -> Callable[..., Artist]:
    def join(role: str = "contributor") -> Artist:
        user = project.member(role)
        return Artist(project, user.id, user.name, user.http)

    return join


@pytest.fixture
def expire(api, project) -> Callable[[str], None]:
    """Ends the lease of a path's lock, as if the time had passed."""

    def end(path_key: str) -> None:
        with psycopg.connect(api.owner_url) as owner:
            ended = owner.execute(
                "UPDATE locks SET expires_at = now() - interval '1 s' WHERE project_id = %s AND path_key = %s",
                (project.id, path_key),
            )
            assert ended.rowcount == 1

    return end


@pytest.fixture
def branch(project) -> Callable[[str], str]:
    def create(name: str) -> str:
        response = project.http.post("/branches", json={"project_id": project.id, "name": name})
        assert response.status_code == 201, response.text
        return str(response.json()["id"])

    return create
