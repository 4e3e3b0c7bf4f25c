"""A workspace as a client keeps it: it asks, applies and acknowledges."""

import json
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest


@dataclass
class LocalWorkspace:
    http: httpx.Client
    id: str
    files: dict[str, int] = field(default_factory=dict)

    def plan(self, **request: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        response = self.http.post(f"/workspaces/{self.id}/sync", json=request)
        assert response.status_code == 200, response.text
        first, *rows, last = [json.loads(line) for line in response.text.splitlines()]
        assert last == {"rows": len(rows)}
        assert [row["path"].casefold() for row in rows] == sorted({row["path"].casefold() for row in rows})
        return first, rows

    def acknowledge(self, at: int, rows: list[dict[str, Any]], complete: bool = False) -> dict[str, Any]:
        files = [{"path": row["path"], "version": row["version"]} for row in rows]
        request = {"at": at, "files": files, "complete": complete}
        response = self.http.post(f"/workspaces/{self.id}/synced", json=request)
        assert response.status_code == 200, response.text
        return response.json()

    def apply(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            assert row["have_version"] == self.files.get(row["path"])
            if row["action"] == "remove":
                del self.files[row["path"]]
            else:
                assert (row["action"] == "fetch") == (row["path"] not in self.files)
                self.files[row["path"]] = row["version"]

    def sync(self, **request: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """All of it, acknowledged; the plan and its rows."""
        plan, rows = self.plan(**request)
        self.apply(rows)
        done = self.acknowledge(plan["at"], rows, complete=True)
        assert (done["is_complete"], done["at_no"]) == (True, plan["at"])
        return plan, rows

    def have(self) -> dict[str, int]:
        items: list[dict[str, Any]] = []
        cursor = None
        while True:
            query = {"limit": 7, **({"cursor": cursor} if cursor else {})}
            page = self.http.get(f"/workspaces/{self.id}/files", params=query).json()
            items += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return {item["path"]: item["version"] for item in items}


@pytest.fixture
def new_workspace(project):
    def make(http: httpx.Client | None = None, **wanted: Any) -> LocalWorkspace:
        http = http or project.http
        document = {"project_id": project.id, "branch_id": project.main, "name": "mine", **wanted}
        response = http.post("/workspaces", json=document)
        assert response.status_code == 201, response.text
        return LocalWorkspace(http, response.json()["id"])

    return make
