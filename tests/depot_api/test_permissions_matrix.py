"""Every route, for every role, strangers, admins, scopes of tokens and nobody: what docs/permissions.md promises."""

import hashlib
import os
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from depot_api.blobstore.pack import MEDIA_TYPE, encode_header

PERMISSIONS = Path(__file__).parents[2] / "docs" / "permissions.md"
ROLES = ("viewer", "reviewer", "contributor", "lead", "manager", "owner")
# Of a studio admin: what the scope leaves of what an admin may do.
SCOPES = ("read", "write", "pipeline")
QUESTIONS = ("/objects/missing", "/objects/fetch")


@dataclass(frozen=True)
class Policy:
    """Who may ask a route; on what is their own only, or also on others' from a role on."""

    who: str
    own: bool
    of_others: str | None


def policies() -> dict[str, Policy]:
    """By route, from the table that people read."""
    rows = re.findall(
        r"^\| `([A-Z]+ /[^`]*)` \| ([a-z ]+)(, own)?(?:; ([a-z]+))? \|$", PERMISSIONS.read_text(), re.MULTILINE
    )
    return {route: Policy(who, bool(own), of_others or None) for route, who, own, of_others in rows}


POLICY = policies()
DELIVERY = "POST /projects/{project_id}/webhooks/{webhook_id}/deliveries/{delivery_id}/replay"
Call = dict[str, Any]


@dataclass
class World:
    """A project with a member of each role. `maker` makes what a request is about: whoever asks, if their role can."""

    project: Any
    users: dict[str, httpx.Client]
    maker: httpx.Client
    asker: httpx.Client
    asset: str
    sha256: str
    reader: str
    members: dict[str, str]
    side: str
    colleague: httpx.Client

    def made(self, method: str, url: str, http: httpx.Client | None = None, **request: Any) -> Any:
        response = (http or self.maker).request(method, url, **request)
        assert response.status_code < 300, response.text
        return response.json()

    def content(self) -> str:
        """Fresh content that the maker has sent."""
        content = os.urandom(16)
        sha256 = hashlib.sha256(content).hexdigest()
        self.made("PUT", f"/projects/{self.project.id}/objects/{sha256}", content=content)
        return sha256

    def add(self) -> dict[str, Any]:
        return {"action": "add", "path": f"made/{secrets.token_hex(8)}", "sha256": self.content()}

    def changelist(self, http: httpx.Client | None = None) -> str:
        changelist = self.made(
            "POST", "/changelists", http, json={"project_id": self.project.id, "branch_id": self.project.main}
        )
        if http is None:
            self.made("POST", f"/changelists/{changelist['id']}/items", json={"items": [self.add()]})
        return str(changelist["id"])

    def submitted(self) -> str:
        changelist = self.changelist()
        self.made("POST", f"/changelists/{changelist}/submit")
        return changelist

    def under_review(self) -> str:
        author = self.project.http if self.maker is self.users["contributor"] else self.users["contributor"]
        return self._asked(author)

    def _asked(self, author: httpx.Client) -> str:
        maker, self.maker = self.maker, author
        changelist = self.changelist()
        self.made("POST", f"/changelists/{changelist}/review-requests", json={})
        self.maker = maker
        return changelist

    def workspace(self) -> str:
        body = {"project_id": self.project.id, "branch_id": self.project.main, "name": secrets.token_hex(8)}
        return str(self.made("POST", "/workspaces", json=body)["id"])

    def to_lock(self) -> dict[str, Any]:
        return {"project_id": self.project.id, "branch_id": self.project.main, "path": NEW(), "base_version": None}

    def lock(self) -> str:
        return str(self.made("POST", "/locks", json=self.to_lock())["id"])

    def foreign_lock(self) -> str:
        return str(self.made("POST", "/locks", self.users["contributor"], json=self.to_lock())["id"])

    def shelf(self) -> str:
        body = {"project_id": self.project.id, "branch_id": self.project.main, "items": [self.add()]}
        return str(self.made("POST", "/shelves", json=body)["id"])

    def fresh_asset(self) -> str:
        path = self.project_path()
        found = self.made("GET", "/assets", params={"project_id": self.project.id, "prefix": path})
        return str(found["items"][0]["id"])

    def project_path(self) -> str:
        item = self.add()
        changelist = self.made(
            "POST", "/changelists", json={"project_id": self.project.id, "branch_id": self.project.main}
        )
        self.made("POST", f"/changelists/{changelist['id']}/items", json={"items": [item]})
        self.made("POST", f"/changelists/{changelist['id']}/submit")
        return str(item["path"])

    def deleted_asset(self) -> str:
        asset = self.fresh_asset()
        self.made("POST", f"/assets/{asset}/delete", json={"base_version": 1})
        return asset

    def label(self) -> str:
        name = f"l{secrets.token_hex(6)}"
        self.made(
            "PUT",
            f"/projects/{self.project.id}/labels/{name}",
            self.project.http,
            json={"branch_id": self.project.main},
        )
        return name

    def webhook(self) -> str:
        body = {"url": "https://example.com/hook"}
        return str(self.made("POST", f"/projects/{self.project.id}/webhooks", self.project.http, json=body)["id"])

    def fresh_member(self) -> str:
        return str(self.project.member("viewer").id)

    def token(self) -> str:
        """Of whoever asks."""
        body = {"name": secrets.token_hex(8), "scope": "read", "expires_in_days": 1}
        return str(self.made("POST", "/auth/tokens", self.asker, json=body)["id"])

    def archivable(self, archived: bool = False) -> str:
        """A project with the same members."""
        made = self.made("POST", "/projects", self.project.http, json={"name": secrets.token_hex(8)})["id"]
        for name, role in self.members.items():
            self.made("POST", f"/projects/{made}/members", self.project.http, json={"username": name, "role": role})
        if archived:
            self.made("POST", f"/projects/{made}/archive", self.project.http, json={"reason": "over"})
        return str(made)

    def obliteration(self) -> str:
        body = {"asset_id": self.deleted_asset(), "reason": "matrix", "dry_run": False}
        made = self.made("POST", f"/projects/{self.project.id}/obliterations", self.project.http, json=body)
        with psycopg.connect(self.project.api.owner_url) as owner:
            owner.execute("UPDATE obliterations SET due_at = now() WHERE id = %s", (made["obliteration_id"],))
        return str(made["obliteration_id"])

    def to_merge(self) -> dict[str, Any]:
        ends = {"source_branch_id": self.side, "target_branch_id": self.project.main}
        return {"project_id": self.project.id, **ends}

    def merge(self) -> str:
        return str(self.made("POST", "/branch-merges", self.project.http, json=self.to_merge())["id"])

    def claimed(self, merge: str) -> dict[str, Any]:
        body = {"executor": "matrix", "merge_id": merge}
        job: dict[str, Any] = self.made("POST", "/merge-jobs/claim", self.project.http, json=body)["job"]
        return job

    def conflict(self) -> str:
        """Of a merge whose first job has begun."""
        merge = self.merge()
        self.begun(merge)
        return self.conflict_at(merge, "both")

    def begun(self, merge: str) -> dict[str, Any]:
        """The first job, which waits for texts."""
        job = self.claimed(merge)
        step = {"fencing_number": job["fencing_number"]}
        self.made("POST", f"/merge-jobs/{job['id']}/step", self.project.http, json=step)
        return job

    def conflict_at(self, merge: str, path: str) -> str:
        conflicts = self.made("GET", f"/branch-merges/{merge}/conflicts", self.project.http)["items"]
        return next(str(conflict["id"]) for conflict in conflicts if conflict["path"] == path)

    def validation(self) -> Call:
        """Of somebody else's work than the pipeline's user."""
        maker, self.maker = self.maker, self.users["contributor"]
        changelist = self.changelist()
        (item,) = self.made("GET", f"/changelists/{changelist}/items")["items"]
        self.maker = maker
        passed = {"path": item["path"], "sha256": item["sha256"], "status": "passed"}
        return {"ids": {"changelist_id": changelist}, "json": {"items": [passed]}}

    def text(self) -> Call:
        merge = self.merge()
        job = self.begun(merge)
        ids = {"job_id": job["id"], "conflict_id": self.conflict_at(merge, "text.ini")}
        return {"ids": ids, "params": {"fencing_number": job["fencing_number"]}, "content": CONTENT}

    def of_claimed_job(self) -> Call:
        job = self.claimed(self.merge())
        return {"ids": {"job_id": job["id"]}, "json": {"fencing_number": job["fencing_number"]}}


def pack_of(content: bytes) -> bytes:
    return encode_header(hashlib.sha256(content).hexdigest(), len(content)) + content


ANY = {"If-Match": "*"}
NEW = lambda: secrets.token_hex(8)  # noqa: E731 - a word for what is short and everywhere
CONTENT = b"content of the matrix"
CALLS: dict[str, Callable[[World], Call]] = {
    "POST /auth/token": lambda w: {"json": {"username": "nobody", "password": "wrong"}},
    "POST /auth/password": lambda w: {"json": {"current_password": "wrong", "new_password": "long enough to take"}},
    "POST /auth/tokens": lambda w: {"json": {"name": NEW(), "scope": "read", "expires_in_days": 1}},
    "POST /users": lambda w: {"json": {"username": f"u{NEW()}", "password": "long enough to take"}},
    "PATCH /users/{user_id}": lambda w: {"json": {"display_name": "seen"}},
    "POST /users/{user_id}/password": lambda w: {"json": {"password": "long enough to take"}},
    "PATCH /projects/{project_id}": lambda w: {"json": {"description": "seen"}},
    "POST /projects/{project_id}/archive": lambda w: {
        "ids": {"project_id": w.archivable()},
        "json": {"reason": "over"},
    },
    "POST /projects/{project_id}/unarchive": lambda w: {"ids": {"project_id": w.archivable(archived=True)}},
    "POST /projects": lambda w: {"json": {"name": NEW()}},
    "POST /projects/{project_id}/members": lambda w: {"json": {"username": w.reader, "role": "viewer"}},
    "PUT /projects/{project_id}/path-permissions": lambda w: {"json": {"rules": []}},
    "GET /projects/{project_id}/path-access": lambda w: {"params": {"path": "a"}},
    "POST /assets": lambda w: {"json": {"project_id": w.project.id, "path": NEW()}},
    "GET /assets": lambda w: {"params": {"project_id": w.project.id}},
    "PATCH /assets/{asset_id}": lambda w: {"json": {"tags": ["seen"]}},
    "POST /assets/{asset_id}/versions": lambda w: {
        "ids": {"asset_id": w.fresh_asset()},
        "json": {"sha256": w.content(), "base_version": 1},
    },
    "POST /assets/{asset_id}/versions/upload": lambda w: {
        "ids": {"asset_id": w.fresh_asset()},
        "files": {"file": os.urandom(8)},
        "data": {"base_version": "1"},
    },
    "POST /assets/{asset_id}/move": lambda w: {
        "ids": {"asset_id": w.fresh_asset()},
        "json": {"to_path": NEW(), "base_version": 1},
    },
    "POST /assets/{asset_id}/delete": lambda w: {"ids": {"asset_id": w.fresh_asset()}, "json": {"base_version": 1}},
    "POST /assets/{asset_id}/restore": lambda w: {"ids": {"asset_id": w.deleted_asset()}, "json": {}},
    "POST /projects/{project_id}/objects/missing": lambda w: {"json": {"sha256": [w.sha256]}},
    "POST /projects/{project_id}/objects/fetch": lambda w: {"json": {"sha256": [w.sha256]}},
    "PUT /projects/{project_id}/objects/{sha256}": lambda w: {
        "ids": {"sha256": hashlib.sha256(CONTENT).hexdigest()},
        "content": CONTENT,
    },
    "POST /projects/{project_id}/objects/pack": lambda w: {
        "content": pack_of(CONTENT),
        "headers": {"Content-Type": MEDIA_TYPE},
    },
    "POST /branches": lambda w: {"json": {"project_id": w.project.id, "name": f"b{NEW()}"}},
    "PATCH /branches/{branch_id}": lambda w: {"json": {"description": "seen"}},
    "GET /branches/{branch_id}/diff": lambda w: {"params": {"from": 1, "to": 1}},
    "PUT /projects/{project_id}/labels/{name}": lambda w: {
        "ids": {"name": f"l{NEW()}"},
        "json": {"branch_id": w.project.main},
    },
    "GET /projects/{project_id}/labels/{name}": lambda w: {"ids": {"name": w.label()}},
    "DELETE /projects/{project_id}/labels/{name}": lambda w: {"ids": {"name": w.label()}},
    "POST /locks": lambda w: {"json": w.to_lock()},
    "POST /locks/batch": lambda w: {
        "json": {
            "project_id": w.project.id,
            "branch_id": w.project.main,
            "items": [{"path": NEW(), "base_version": None}],
        }
    },
    "POST /locks/{lock_id}/renew": lambda w: {"json": {"lease_seconds": 60}, "headers": ANY},
    "DELETE /locks/{lock_id}": lambda w: {"headers": ANY},
    "POST /locks/{lock_id}/break": lambda w: {"ids": {"lock_id": w.foreign_lock()}, "json": {"reason": "on holiday"}},
    "PUT /projects/{project_id}/typemap": lambda w: {"json": {"rules": []}},
    "POST /workspaces": lambda w: {"json": {"project_id": w.project.id, "branch_id": w.project.main, "name": NEW()}},
    "PATCH /workspaces/{workspace_id}": lambda w: {"json": {"include": ["*.uasset"]}},
    "POST /workspaces/{workspace_id}/sync": lambda w: {"json": {}},
    "POST /workspaces/{workspace_id}/synced": lambda w: {"json": {"at": 0, "files": []}},
    "POST /shelves": lambda w: {"json": {"project_id": w.project.id, "branch_id": w.project.main, "items": [w.add()]}},
    "PUT /shelves/{shelf_id}/items": lambda w: {"json": {"items": [w.add()]}},
    "PATCH /shelves/{shelf_id}": lambda w: {"json": {"description": "seen"}},
    "POST /shelves/{shelf_id}/unshelve": lambda w: {"json": {"changelist_id": w.changelist()}},
    "POST /changelists/{changelist_id}/shelve": lambda w: {"json": {}},
    "POST /changelists": lambda w: {"json": {"project_id": w.project.id}},
    "PATCH /changelists/{changelist_id}": lambda w: {"json": {"description": "seen"}, "headers": ANY},
    "DELETE /changelists/{changelist_id}": lambda w: {"headers": ANY},
    "POST /changelists/{changelist_id}/items": lambda w: {"json": {"items": [w.add()]}},
    "POST /changelists/{changelist_id}/items/revert": lambda w: {"json": {"paths": ["none"]}},
    "POST /changelists/{changelist_id}/revert": lambda w: {"ids": {"changelist_id": w.submitted()}, "json": {}},
    "POST /changelists/{changelist_id}/validations": World.validation,
    "POST /changelists/{changelist_id}/review-requests": lambda w: {"json": {}},
    "PUT /changelists/{changelist_id}/review": lambda w: {
        "ids": {"changelist_id": w.under_review()},
        "json": {"verdict": "approved"},
        "headers": ANY,
    },
    "POST /changelists/{changelist_id}/comments": lambda w: {"json": {"body": "seen"}},
    "POST /projects/{project_id}/obliterations": lambda w: {
        "json": {"asset_id": w.deleted_asset(), "reason": "matrix"}
    },
    "POST /branch-merges": lambda w: {"json": w.to_merge()},
    "POST /branch-merges/{merge_id}/conflicts": lambda w: {"json": {"pattern": "**", "resolution": "source"}},
    "POST /branch-merges/{merge_id}/jobs": lambda w: {"json": {"job_type": "submit_gate"}},
    "PATCH /merge-conflicts/{conflict_id}": lambda w: {"json": {"resolution": "source"}},
    "POST /merge-jobs/claim": lambda w: {"json": {"executor": "matrix"}},
    "PATCH /merge-jobs/{job_id}": World.of_claimed_job,
    "POST /merge-jobs/{job_id}/step": World.of_claimed_job,
    "PUT /merge-jobs/{job_id}/texts/{conflict_id}": World.text,
    "POST /projects/{project_id}/webhooks": lambda w: {"json": {"url": "https://example.com/hook"}},
    "PATCH /projects/{project_id}/webhooks/{webhook_id}": lambda w: {"json": {"is_active": False}},
}
IDS: dict[str, Callable[[World], str]] = {
    "project_id": lambda w: w.project.id,
    "branch_id": lambda w: w.project.main,
    "asset_id": lambda w: w.asset,
    "number": lambda w: "1",
    "sha256": lambda w: w.sha256,
    "changelist_id": lambda w: w.changelist(),
    "lock_id": lambda w: w.lock(),
    "workspace_id": lambda w: w.workspace(),
    "shelf_id": lambda w: w.shelf(),
    "merge_id": lambda w: w.merge(),
    "conflict_id": lambda w: w.conflict(),
    "job_id": lambda w: w.claimed(w.merge())["id"],
    "webhook_id": lambda w: w.webhook(),
    "delivery_id": lambda w: "00000000-0000-0000-0000-000000000000",
    "user_id": lambda w: w.fresh_member(),
    "token_id": lambda w: w.token(),
    "obliteration_id": lambda w: w.obliteration(),
}


@pytest.fixture(scope="module")
def world(api, running_api_factory):
    make_project, _ = running_api_factory
    project = make_project(api)
    members = {role: project.member(role) for role in ROLES}
    users = {role: member.http for role, member in members.items()}
    users |= {
        "admin": project.http,
        "editor": api.user("editor").http,
        "stranger": stranger_with_a_project(api, make_project),
    }
    users |= {scope: scoped(api, scope) for scope in SCOPES}
    content = os.urandom(16)
    project.add("seen", content)
    (asset,) = project.http.get("/assets", params={"project_id": project.id}).json()["items"]
    sha256 = hashlib.sha256(content).hexdigest()
    names = {member.name: role for role, member in members.items()}
    reader = project.member("viewer").name
    typemap = {"rules": [{"pattern": "*.ini", "mergeable": True}]}
    assert project.http.put(f"/projects/{project.id}/typemap", json=typemap).status_code == 200
    project.add("text.ini", b"before")
    side = project.http.post("/branches", json={"project_id": project.id, "name": "side"}).json()["id"]
    for branch, content_there in ((project.main, b"here"), (side, b"there")):
        project.add("both", content_there, branch)
        edit = {"action": "edit", "path": "text.ini", "base_version": 1, "sha256": project.put(content_there)}
        project.submit([edit], branch)
    colleague = project.member("contributor").http
    return World(project, users, project.http, project.http, asset["id"], sha256, reader, names, side, colleague)


def stranger_with_a_project(api, make_project) -> httpx.Client:
    """The owner of another project, in which there is something of each kind."""
    other, owner = make_project(api), api.user()
    body = {"username": owner.name, "role": "owner"}
    assert other.http.post(f"/projects/{other.id}/members", json=body).status_code == 200
    other.add("seen", b"another project's")
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    assert owner.http.put(f"/projects/{other.id}/objects/{sha256}", content=CONTENT).status_code == 201
    items = [{"action": "add", "path": "shelved", "sha256": sha256}]
    of = {"project_id": other.id, "branch_id": other.main}
    for path, body in (
        ("/changelists", of),
        ("/shelves", {**of, "items": items}),
        ("/workspaces", {**of, "name": "theirs"}),
        ("/locks", {**of, "path": "locked", "base_version": None}),
        (f"/projects/{other.id}/webhooks", {"url": "https://example.com/theirs"}),
    ):
        response = owner.http.post(path, json=body)
        assert response.status_code == 201, response.text
    return owner.http


def scoped(api, scope: str) -> httpx.Client:
    """The studio admin's, with a token of that scope."""
    with api.client() as http:
        made = http.post("/auth/tokens", json={"name": scope, "scope": scope, "expires_in_days": 1})
    return api.client(made.json()["token"])


def test_the_table_names_every_route_and_no_other(world):
    paths = world.project.http.get("/openapi.json").json()["paths"]
    routes = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert routes == set(POLICY)


def status_of(world: World, route: str, http: httpx.Client) -> int:
    method, template = route.split(" ")
    call = CALLS.get(route, lambda _: {})(world)
    ids = call.pop("ids", {})
    names = re.findall(r"{(\w+)}", template)
    url = template.format(**{name: ids.get(name) or IDS[name](world) for name in names})
    with http.stream(method, url, **call) as response:  # an event stream never ends by itself
        return response.status_code


def expected(who: str, subject: str, route: str) -> str:
    """`passes`, or the status that it is refused with."""
    if subject in SCOPES:
        return expected_of_scope(who, subject, route)
    if who == "pipeline" and subject != "nobody":
        return "403"
    if who == "everyone" or (who == "signed in" and subject != "nobody"):
        return "passes"
    return "401" if subject == "nobody" else expected_of_role(who, subject, route)


def expected_of_role(who: str, subject: str, route: str) -> str:
    if subject == "admin":
        return "passes"
    if who == "editor":
        return "passes" if subject == "editor" else "403"
    if subject in ("stranger", "editor"):
        return "403" if who == "admin" and ("/users" in route or route == "GET /audit") else "404"
    return "passes" if who in ROLES and ROLES.index(subject) >= ROLES.index(who) else "403"


def expected_of_scope(who: str, scope: str, route: str) -> str:
    """Of the studio admin's tokens."""
    if who == "everyone":
        return "passes"
    if who == "pipeline":
        return "passes" if scope == "pipeline" else "403"
    reads = route.startswith("GET ") or route.endswith(QUESTIONS)
    of_accounts = who == "admin" or route == "POST /auth/password"
    return "403" if of_accounts or (scope != "write" and not reads) else "passes"


# What passes and still cannot succeed: made-up account and password, another's token, nothing delivered yet.
PASSES_WITH = {
    "POST /auth/token": (401, 429),
    "POST /auth/password": (422, 429),
    "DELETE /users/{user_id}/tokens/{token_id}": (404,),
    DELIVERY: (404,),
}


def passed(status: int, route: str) -> bool:
    return status < 300 or status in PASSES_WITH.get(route, ())


@pytest.mark.parametrize("route", sorted(POLICY))
def test_every_subject_gets_what_the_table_promises(world, route):
    who = POLICY[route].who
    nobody = httpx.Client(base_url=world.project.api.url, timeout=30)
    seen, wanted = {}, {}
    for subject, http in [*world.users.items(), ("nobody", nobody)]:
        can_make = subject in ("contributor", "lead", "manager", "owner") or (
            subject in ROLES and "workspace_id" in route
        )
        world.maker = http if can_make else world.project.http
        world.asker = world.project.http if subject in ("nobody", *SCOPES) else http
        status = status_of(world, route, http)
        wanted[subject] = expected(who, subject, route)
        seen[subject] = "passes" if wanted[subject] == "passes" and passed(status, route) else str(status)
    nobody.close()
    assert seen == wanted


@pytest.mark.parametrize("route", sorted(route for route, policy in POLICY.items() if policy.own))
def test_what_is_someone_elses_is_not_ones_own(world, route, monkeypatch):
    monkeypatch.setattr(world, "content", lambda: world.sha256)  # which every member may refer to
    world.maker = world.asker = world.users["contributor"]
    assert status_of(world, route, world.colleague) in (403, 404)
    if of_others := POLICY[route].of_others:
        assert status_of(world, route, world.users[of_others]) < 300


@pytest.mark.parametrize("path", ["/projects", "/reviews", "/reviews/pending", "/merge-jobs", "/auth/tokens"])
@pytest.mark.parametrize("subject", ["stranger", "editor"])
def test_lists_over_all_projects_hold_nothing_of_this_one(world, path, subject):
    world.maker = world.project.http
    world.under_review(), world.merge()
    assert world.project.id in world.project.http.get("/projects", params={"name": world.project.name}).text
    answer = world.users[subject].get(path, params={"limit": 1000})
    assert (answer.status_code, world.project.id in answer.text) == (200, False)
