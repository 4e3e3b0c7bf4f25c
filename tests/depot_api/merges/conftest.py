"""A project's branches and merges in a line each, as the scenarios write them; and the least of an executor."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest


def sha256(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


@dataclass
class Merging:
    """Contents are short texts; branches go by name."""

    project: Any
    branches: dict[str, str] = field(default_factory=dict)
    contents: dict[str, str] = field(default_factory=dict)
    sent: set[str] = field(default_factory=set)

    @property
    def http(self) -> httpx.Client:
        client: httpx.Client = self.project.http
        return client

    def ok(self, method: str, url: str, **request: Any) -> Any:
        response = self.http.request(method, url, **request)
        assert response.status_code < 300, response.text
        return response.json()

    def put(self, content: str) -> str:
        if content not in self.sent:
            self.project.put(content.encode())
            self.sent.add(content)
            self.contents[sha256(content)] = content
        return sha256(content)

    def branch(self, name: str, parent: str = "main") -> None:
        body = {"project_id": self.project.id, "name": name, "parent_id": self.branches[parent]}
        self.branches[name] = self.ok("POST", "/branches", json=body)["id"]

    def heads(self, branch: str) -> dict[str, str]:
        found = self.project.heads(self.branches[branch])
        return {path: self.contents[content] for path, (_, content) in found.items()}

    def submit(self, branch: str, changes: list[list[str]]) -> int:
        """`changes` are [action, path, content] or [move, from, to] or [move, from, to, content]."""
        heads = self.project.heads(self.branches[branch])
        items = [self._item(change, heads) for change in changes]
        number: int = self.project.submit(items, self.branches[branch])
        return number

    def _item(self, change: list[str], heads: dict[str, tuple[int, str]]) -> dict[str, Any]:
        action, path, *rest = change
        base = heads[path][0] if path in heads else None
        if action == "move":
            content = self.put(rest[1]) if len(rest) > 1 else heads[path][1]
            return {"action": "move", "path": rest[0], "moved_from": path, "base_version": base, "sha256": content}
        if action == "delete":
            return {"action": "delete", "path": path, "base_version": base}
        if action == "add":
            return {"action": "add", "path": path, "sha256": self.put(rest[0])}
        if action == "take":  # a single path, integrated by hand
            theirs = self.project.heads(self.branches[rest[0]])[path]
            source = {"source_branch_id": self.branches[rest[0]], "source_version": theirs[0]}
            content = self.put(rest[1]) if len(rest) > 1 else theirs[1]
            return {"action": "integrate", "path": path, "base_version": base, "sha256": content, **source}
        return {"action": action, "path": path, "base_version": base, "sha256": self.put(rest[0])}

    def begin(self, source: str, target: str, **options: Any) -> dict[str, Any]:
        ends = {"source_branch_id": self.branches[source], "target_branch_id": self.branches[target]}
        body = {"project_id": self.project.id, **ends, "submit": True, **options}
        made: dict[str, Any] = self.ok("POST", "/branch-merges", json=body)
        return made

    def work(self, merge: dict[str, Any]) -> dict[str, Any]:
        """Do what jobs there are to do; the merge then. Texts are left to people."""
        while job := self.claim(merge):
            self.step(job, texts_tried=True)
        return self.merge(merge)

    def claim(self, merge: dict[str, Any], **options: Any) -> dict[str, Any] | None:
        body = {"executor": "test", "merge_id": merge["id"], **options}
        job: dict[str, Any] | None = self.ok("POST", "/merge-jobs/claim", json=body)["job"]
        return job

    def step(self, job: dict[str, Any], **options: Any) -> dict[str, Any]:
        body = {"fencing_number": job["fencing_number"], **options}
        answer: dict[str, Any] = self.ok("POST", f"/merge-jobs/{job['id']}/step", json=body)
        return answer

    def merge(self, merge: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = self.ok("GET", f"/branch-merges/{merge['id']}")
        return found

    def jobs(self, merge: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """The newest of each type."""
        return {job["job_type"]: job for job in self.ok("GET", f"/branch-merges/{merge['id']}/jobs")}

    def conflicts(self, merge: dict[str, Any], **query: Any) -> dict[str, dict[str, Any]]:
        found = self.ok("GET", f"/branch-merges/{merge['id']}/conflicts", params=query)["items"]
        return {conflict["path"]: conflict for conflict in found}

    def resolve(self, merge: dict[str, Any], path: str, choice: str) -> dict[str, Any]:
        """`choice` is source, target, or =content."""
        body = {"resolution": choice}
        if choice.startswith("="):
            body = {"resolution": "supplied", "sha256": self.put(choice[1:])}
        conflict = self.conflicts(merge)[path]
        resolved: dict[str, Any] = self.ok("PATCH", f"/merge-conflicts/{conflict['id']}", json=body)
        return resolved


@pytest.fixture
def new_merging(api, running_api_factory):
    make_project, _ = running_api_factory

    def make() -> Merging:
        project = make_project(api)
        return Merging(project, {"main": project.main})

    return make


@pytest.fixture
def merging(new_merging):
    return new_merging()
