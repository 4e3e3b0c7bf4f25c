"""Many clients submit, lock, shelve and abandon at random while the service is killed with `kill -9` and started again.

Afterwards history itself is asked: the heads equal a serial order, nothing acknowledged is missing, nothing
unacknowledged is half there, and no path changed under somebody else's lock. `make torture SEED=n TORTURE_SECONDS=n`
runs it for longer; CI runs it for seconds.
"""

import hashlib
import json
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import psycopg

SEED = int(os.environ.get("SEED", "1"))
TORTURE_SECONDS = float(os.environ.get("TORTURE_SECONDS", "8"))
ROLES = ("contributor", "contributor", "contributor", "contributor", "lead", "lead")
EXCLUSIVE = "Content/d0/**"  # changed only under a lock
LEASE_SECONDS = 3600  # longer than any run
PATHS = [f"Content/d{n % 5}/a{n}.uasset" for n in range(40)]
LIFE_SECONDS = (0.5, 4.0)  # of the service between two kills
GIVE_UP_SECONDS = 120


@dataclass
class Client:
    """One user with a head of their own: what they tried, and what they were told."""

    http: httpx.Client
    project: str
    branch: str
    rng: random.Random
    over: threading.Event
    acknowledged: dict[str, int] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    abandoned: set[str] = field(default_factory=set)
    shelves: dict[str, set[tuple[str, str | None]]] = field(default_factory=dict)
    locks: set[tuple[str, int]] = field(default_factory=set)

    def run(self) -> None:
        steps: list[Callable[[], None]] = [self.submit, self.submit, self.submit, self.shelve, self.abandon, self.lock]
        while not self.over.is_set():
            self.rng.choice(steps)()

    def ask(self, method: str, url: str, **request: Any) -> httpx.Response:
        """Until there is an answer; the same request each time, under the same key where it creates."""
        headers = {**request.pop("headers", {}), "Idempotency-Key": f"{self.rng.getrandbits(128):032x}"}
        deadline = time.monotonic() + GIVE_UP_SECONDS
        while True:
            try:
                response = self.http.request(method, url, headers=headers, **request)
                if response.status_code != 503:
                    assert response.status_code < 500, f"{method} {url}: {response.text}"
                    return response
            except httpx.TransportError:
                assert time.monotonic() < deadline, f"{method} {url}: no answer in {GIVE_UP_SECONDS} s"

    def content(self) -> str:
        content = self.rng.randbytes(self.rng.choice((10, 1000, 100_000)))
        sha256 = hashlib.sha256(content).hexdigest()
        response = self.ask("PUT", f"/projects/{self.project}/objects/{sha256}", content=content)
        assert response.status_code == 201, response.text
        return sha256

    def heads(self) -> dict[str, int]:
        rows = self.ask("GET", f"/branches/{self.branch}/manifest", params={"limit": 1000}).json()["items"]
        return {row["path"]: row["version"] for row in rows}

    def item(self, path: str, base: int | None) -> dict[str, Any]:
        if base is None:
            return {"action": "add", "path": path, "sha256": self.content()}
        if self.rng.random() < 0.25:
            return {"action": "delete", "path": path, "base_version": base}
        return {"action": "edit", "path": path, "base_version": base, "sha256": self.content()}

    def items(self) -> list[dict[str, Any]]:
        heads = self.heads()
        return [self.item(path, heads.get(path)) for path in self.rng.sample(PATHS, self.rng.randint(1, 6))]

    def open(self, items: list[dict[str, Any]]) -> str:
        made = self.ask("POST", "/changelists", json={"project_id": self.project, "branch_id": self.branch})
        changelist: str = made.json()["id"]
        response = self.ask("POST", f"/changelists/{changelist}/items", json={"items": items})
        assert response.status_code == 200, response.text
        return changelist

    def submit(self, items: list[dict[str, Any]] | None = None) -> None:
        changelist = self.open(items or self.items())
        response = self.ask("POST", f"/changelists/{changelist}/submit")
        if response.status_code == 200:
            self.acknowledged[changelist] = response.json()["number"]
        else:
            assert response.status_code == 409, response.text
            self.refused.add(changelist)

    def abandon(self) -> None:
        changelist = self.open(self.items())
        response = self.ask("DELETE", f"/changelists/{changelist}", params={}, **{"headers": {"If-Match": "*"}})
        assert response.status_code in (204, 409), (
            response.text
        )  # 409: abandoned already, by the request before the kill
        self.abandoned.add(changelist)

    def shelve(self) -> None:
        items = self.items()
        body = {"project_id": self.project, "branch_id": self.branch, "items": items}
        response = self.ask("POST", "/shelves", json=body)
        if response.status_code == 201:
            self.shelves[response.json()["id"]] = {(item["path"], item.get("sha256")) for item in items}
        else:
            assert response.status_code == 409, response.text

    def lock(self) -> None:
        path = self.rng.choice(PATHS)
        base = self.heads().get(path)
        body = {
            "project_id": self.project,
            "branch_id": self.branch,
            "path": path,
            "base_version": base,
            "lease_seconds": LEASE_SECONDS,
        }
        response = self.ask("POST", "/locks", json=body)
        if response.status_code in (200, 201):
            lock = response.json()
            self.locks.add((lock["id"], lock["fencing_number"]))
            self.submit([{**self.item(path, base), "lock_fencing_number": lock["fencing_number"]}])
            released = self.ask("DELETE", f"/locks/{lock['id']}", headers={"If-Match": "*"})
            assert released.status_code in (204, 404), released.text  # 404: the submit has released it
        else:
            assert response.status_code == 409, response.text


def test_history_is_a_serial_order_whatever_is_killed(service):
    print(f"SEED={SEED} TORTURE_SECONDS={TORTURE_SECONDS}")
    rng = random.Random(SEED)
    owner = httpx.Client(
        base_url=service.url, headers={"Authorization": f"Bearer {service.token('admin')}"}, timeout=30
    )
    project = owner.post("/projects", json={"name": "torture"}).json()
    over = threading.Event()
    clients = []
    rules = {"rules": [{"pattern": EXCLUSIVE, "exclusive": True}]}
    assert owner.put(f"/projects/{project['id']}/typemap", json=rules).status_code == 200
    for number, role in enumerate(ROLES):
        name, token = service.user("viewer")
        joined = owner.post(f"/projects/{project['id']}/members", json={"username": name, "role": role})
        assert joined.status_code == 200, joined.text
        http = httpx.Client(base_url=service.url, headers={"Authorization": f"Bearer {token}"}, timeout=30)
        clients.append(
            Client(http, project["id"], project["default_branch_id"], random.Random(f"{SEED} {number}"), over)
        )
    failures: list[BaseException] = []

    def guarded(client: Client) -> None:
        try:
            client.run()
        except BaseException as error:
            failures.append(error)
            over.set()

    threads = [threading.Thread(target=guarded, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    ends_at, kills = time.monotonic() + TORTURE_SECONDS, 0
    while time.monotonic() < ends_at and not over.wait(rng.uniform(*LIFE_SECONDS)):
        service.kill()
        kills += 1
        service.start()
    over.set()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    acknowledged = {changelist: number for client in clients for changelist, number in client.acknowledged.items()}
    print(f"{kills} kills, {len(acknowledged)} submits acknowledged")
    assert kills > 0 and acknowledged
    check_history(service.owner_url, project["id"], acknowledged, clients)
    check_shelves(service.owner_url, project["id"], clients)
    check_locks(service.owner_url, project["id"], clients)
    check_contents(owner, project)


def check_history(owner_url: str, project: str, acknowledged: dict[str, int], clients: list[Client]) -> None:
    with psycopg.connect(owner_url) as owner:
        submitted = owner.execute(
            "SELECT number, id::text FROM changelists WHERE project_id = %s AND status = 'submitted' ORDER BY number",
            (project,),
        ).fetchall()
        items = owner.execute(
            """SELECT c.number, i.path, i.action, i.base_version, encode(i.sha256, 'hex') FROM changelist_items i
               JOIN changelists c ON c.id = i.changelist_id WHERE c.project_id = %s AND c.number IS NOT NULL""",
            (project,),
        ).fetchall()
        heads = owner.execute(
            "SELECT from_no, path, version, encode(sha256, 'hex') FROM branch_heads WHERE project_id = %s", (project,)
        ).fetchall()
        versions = owner.execute(
            "SELECT changelist_id::text, count(*) FROM asset_versions WHERE project_id = %s GROUP BY 1", (project,)
        ).fetchall()
        told = owner.execute(
            "SELECT payload ->> 'id' FROM events WHERE project_id = %s AND kind = 'changelist.submitted'", (project,)
        ).fetchall()
    numbers = {changelist: number for number, changelist in submitted}
    assert list(numbers.values()) == list(range(1, len(numbers) + 1)), "numbers have no gaps"
    assert {c: numbers.get(c) for c in acknowledged} == acknowledged, "nothing acknowledged is missing"
    for client in clients:
        assert not numbers.keys() & (client.refused | client.abandoned), "nothing refused or abandoned landed"
    assert {changelist for changelist, _ in versions} <= numbers.keys(), "nothing is half there"
    assert sorted(row[0] for row in told) == sorted(numbers), "one event for each"
    expected = replay(items)
    assert sorted(heads, key=str) == sorted(expected, key=str), "heads equal the serial order of the numbers"


def replay(items: list[tuple[Any, ...]]) -> list[tuple[int, str, int | None, str | None]]:
    """What submits in the order of their numbers leave behind. Fails where one builds on another state."""
    heads: dict[str, int | None] = {}
    last_versions: dict[str, int] = {}
    written = []
    for number, path, action, base, sha256 in sorted(items):
        assert heads.get(path) == base, f"{path} in {number} is based on {base}, and was at {heads.get(path)}"
        if action == "delete":
            heads[path] = None
            written.append((number, path, None, None))
            continue
        heads[path] = last_versions[path] = last_versions.get(path, 0) + 1
        written.append((number, path, heads[path], sha256))
    return written


def check_shelves(owner_url: str, project: str, clients: list[Client]) -> None:
    """Every request was answered in the end: so what was acknowledged is all there is, whole."""
    with psycopg.connect(owner_url) as owner:
        rows = owner.execute(
            """SELECT s.id::text, s.items_count, i.path, encode(i.sha256, 'hex')
               FROM shelves s LEFT JOIN shelf_items i ON i.shelf_id = s.id WHERE s.project_id = %s""",
            (project,),
        ).fetchall()
    found: dict[str, set[tuple[str, str | None]]] = {}
    for shelf, _, path, sha256 in rows:
        found.setdefault(shelf, set()).add((path, sha256))
    assert found == {shelf: items for client in clients for shelf, items in client.shelves.items()}
    assert all(len(found[shelf]) == count for shelf, count, _, _ in rows)


def check_locks(owner_url: str, project: str, clients: list[Client]) -> None:
    """The audit log is in the order in which grants and submits took turns: one holder of a path at a time, and nobody
    else's change of it meanwhile."""
    with psycopg.connect(owner_url) as owner:
        rows = owner.execute(
            """SELECT table_name, operation, coalesce(after, before) FROM audit_log
               WHERE project_id = %s AND (table_name = 'locks' OR table_name = 'changelists'
                   AND after ->> 'status' = 'submitted' AND before ->> 'status' <> 'submitted') ORDER BY id""",
            (project,),
        ).fetchall()
        items = owner.execute(
            "SELECT changelist_id::text, path_key FROM changelist_items WHERE project_id = %s", (project,)
        ).fetchall()
        left = owner.execute("SELECT count(*) FROM locks WHERE project_id = %s", (project,)).fetchone()
    paths: dict[str, list[str]] = {}
    for changelist, key in items:
        paths.setdefault(changelist, []).append(key)
    held: dict[str, str] = {}
    granted = set()
    for table, operation, row in rows:
        if table == "changelists":
            others = [key for key in paths[row["id"]] if held.get(key, row["author_id"]) != row["author_id"]]
            assert not others, f"{others} changed under the lock of somebody else"
        elif operation == "DELETE":
            del held[row["path_key"]]
        else:
            assert held.setdefault(row["path_key"], row["holder_id"]) == row["holder_id"], "two hold one path"
            granted.add((row["id"], row["fencing_number"]))
    assert {lock for client in clients for lock in client.locks} <= granted, "nothing acknowledged is missing"
    assert (held, left) == ({}, (0,)), "each lock was released, by its holder or by the submit"


def check_contents(owner: httpx.Client, project: dict[str, Any]) -> None:
    lines = owner.get(
        f"/branches/{project['default_branch_id']}/manifest", headers={"Accept": "application/x-ndjson"}
    ).text.splitlines()
    rows = [json.loads(line) for line in lines[1:-1]]
    assert json.loads(lines[-1]) == {"rows": len(rows)}
    for row in rows:
        content = owner.get(f"/projects/{project['id']}/objects/{row['sha256']}").content
        assert hashlib.sha256(content).hexdigest() == row["sha256"]
