"""The catalogue of a lost database comes back from refs/ and objects/ alone, whole or saying what is missing."""

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import pytest
from psycopg import sql


@dataclass
class Lost:
    """A depot that was worked on and stopped, and whose database is gone."""

    store: Path
    project_id: str
    branches: dict[str, str]
    newest: int
    numbers: list[int]
    heads: dict[tuple[str, int], dict]
    contents: dict[str, bytes]


def wait_until_read(owner_url: str) -> None:
    deadline = time.monotonic() + 30
    with psycopg.connect(owner_url, autocommit=True) as owner:
        while True:
            left = owner.execute("SELECT count(*) FROM outbox_events('refs', 1000)").fetchone()
            unseen = owner.execute(
                "SELECT count(*) FROM events WHERE xact_id >= pg_snapshot_xmin(pg_current_snapshot())"
            ).fetchone()
            if left == (0,) and unseen == (0,):
                return
            assert time.monotonic() < deadline, (left, unseen)
            time.sleep(0.05)


def numbers_of(project) -> list[int]:
    found = project.http.get(f"/projects/{project.id}/changelists", params={"status": "submitted"}).json()["items"]
    return sorted(one["number"] for one in found)


@pytest.fixture
def lost(worked_on, tmp_path) -> Lost:
    """What is left of it, to be damaged."""
    shutil.copytree(worked_on.store, tmp_path / "store")
    return replace(worked_on, store=tmp_path / "store")


@pytest.fixture(scope="module")
def worked_on(cluster, depot_template, tmp_path_factory, running_api_factory) -> Lost:
    make_project, running_api = running_api_factory
    directory = tmp_path_factory.mktemp("worked_on")
    with running_api(cluster, depot_template, directory) as api:
        project = make_project(api)
        contents: dict[str, bytes] = {}

        def put(content: bytes) -> str:
            sha256 = project.put(content)
            contents[sha256] = content
            return sha256

        a, b, c, big = (put(content) for content in (b"a", b"b", b"", os.urandom(3 << 20)))
        body = {"project_id": project.id, "path": "Content/x", "tags": ["hero"], "metadata": {"lod": 2}}
        assert project.http.post("/assets", json=body).status_code == 201
        project.submit([{"action": "add", "path": p, "sha256": a} for p in ("Content/x", "Content/y", "Ümläut/Z")])
        project.submit([{"action": "edit", "path": "Content/x", "base_version": 1, "sha256": big}])
        made = project.http.post("/branches", json={"project_id": project.id, "name": "release/1"}).json()
        side = made["id"]
        project.submit([{"action": "edit", "path": "Content/x", "base_version": 2, "sha256": b}], side)
        project.submit([{"action": "delete", "path": "Content/y", "base_version": 1}])
        moved = {"action": "move", "path": "b/z", "moved_from": "Ümläut/Z", "base_version": 1, "sha256": c}
        project.submit([moved, {"action": "add", "path": "Content/new", "sha256": b}], side)
        project.submit([{"action": "add", "path": "Content/y", "sha256": c}])
        grand = project.http.post(
            "/branches", json={"project_id": project.id, "name": "release/1.1", "parent_id": side, "parent_at": 5}
        ).json()["id"]
        project.submit([{"action": "delete", "path": "b/z", "base_version": 1}], grand)
        project.member("lead")
        work, newest = merge_and_obliterate(project, put, api.owner_url)
        protect(project)
        branches = {"main": project.main, "release/1": side, "release/1.1": grand, "work": work}
        heads = {(name, at): project.heads(branch, at) for name, branch in branches.items() for at in range(newest + 1)}
        numbers = numbers_of(project)
        assert len(numbers) == newest - 1, "a merge that changed nothing has a number too, and no changelist"
        wait_until_read(api.owner_url)
        name = api.owner_url.rsplit("/", 1)[1]
    with psycopg.connect(cluster.url(), autocommit=True) as admin:
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
    return Lost(directory / "store", project.id, branches, newest, numbers, heads, contents)


RULES = [{"pattern": "Secret/**", "access": "none", "role": "lead", "username": None}]
TYPEMAP = [{"pattern": "*.uasset", "exclusive": True, "mergeable": False, "asset_type": "engine", "scope": "branch"}]
PROTECTION = {"require_validation": True, "approve_role": "lead", "required_approvals": 2}


def merge(project, source: str, target: str) -> dict:
    ends = {"source_branch_id": source, "target_branch_id": target}
    made = project.http.post("/branch-merges", json={"project_id": project.id, "submit": True, **ends}).json()
    ask = {"executor": "test", "merge_id": made["id"]}
    while job := project.http.post("/merge-jobs/claim", json=ask).json()["job"]:
        step = {"fencing_number": job["fencing_number"], "texts_tried": True}
        assert project.http.post(f"/merge-jobs/{job['id']}/step", json=step).status_code == 200
    return project.http.get(f"/branch-merges/{made['id']}").json()


def merge_and_obliterate(project, put, owner_url: str) -> tuple[str, int]:
    """A branch that main has merged, twice, and a version without its bytes. The branch, and the newest changelist."""
    named = {"project_id": project.id, "name": "work"}
    work = project.http.post("/branches", json=named).json()["id"]
    project.submit([{"action": "add", "path": "merged", "sha256": put(b"first")}], work)
    assert merge(project, work, project.main)["status"] == "merged"
    assert merge(project, work, project.main)["paths_count"] == 0
    project.submit([{"action": "add", "path": "leak", "sha256": project.put(b"a key by mistake")}], work)
    project.submit([{"action": "edit", "path": "leak", "base_version": 1, "sha256": put(b"none")}], work)
    on_work = {"project_id": project.id, "branch_id": work, "prefix": "leak"}
    (leak,) = project.http.get("/assets", params=on_work).json()["items"]
    chosen = {"asset_id": leak["id"], "versions": [1], "reason": "a key", "dry_run": False}
    made = project.http.post(f"/projects/{project.id}/obliterations", json=chosen).json()
    with psycopg.connect(owner_url) as owner:
        owner.execute("UPDATE obliterations SET due_at = now()")
    assert project.http.post(f"/obliterations/{made['obliteration_id']}/complete").status_code == 200
    return work, project.submit([{"action": "edit", "path": "merged", "base_version": 1, "sha256": put(b"2nd")}], work)


def protect(project) -> None:
    assert project.http.put(f"/projects/{project.id}/path-permissions", json={"rules": RULES}).status_code == 200
    assert project.http.put(f"/projects/{project.id}/typemap", json={"rules": TYPEMAP}).status_code == 200
    label = {"branch_id": project.main, "at": 3}
    assert project.http.put(f"/projects/{project.id}/labels/alpha", json=label).status_code == 201
    assert project.http.patch(f"/branches/{project.main}", json=PROTECTION).status_code == 200


@pytest.fixture
def empty_database(cluster, depot_template) -> str:
    name = f"rebuilt_{secrets.token_hex(4)}"
    with psycopg.connect(cluster.url(), autocommit=True) as admin:
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER depot_owner STRATEGY file_copy")
        admin.execute(create.format(sql.Identifier(name), sql.Identifier(depot_template)))
    return name


def rebuild(cluster, store: Path, database: str) -> subprocess.CompletedProcess[str]:
    program = "from depot_ops.cli import main; main()"
    command = [sys.executable, "-c", program, "catalogue", "rebuild", "--store", str(store)]
    url = cluster.url(database, "depot_owner")
    return subprocess.run([*command, "--database-url", url], capture_output=True, text=True, check=False)


def test_everything_comes_back(cluster, depot_template, tmp_path, lost, empty_database, running_api_factory):
    done = rebuild(cluster, lost.store, empty_database)
    assert done.returncode == 0, done.stderr + done.stdout
    report = json.loads(done.stdout)
    assert (report["projects"], report["branches"], report["changelists"]) == (1, 4, len(lost.numbers))
    assert report["objects_verified"] == len(lost.contents)

    make_project, running_api = running_api_factory
    with running_api(cluster, depot_template, tmp_path, store=lost.store, database=empty_database) as api:
        with psycopg.connect(api.owner_url) as owner:
            users = owner.execute("SELECT username, is_active, password_hash IS NULL FROM users").fetchall()
        assert len(users) == 2
        assert ("admin", True, False) in users
        assert [user[1:] for user in users if user[0] != "admin"] == [(False, True)]

        project = make_project(api)  # a new project beside the old one; then its shortcuts serve the old one
        project.id, project.main = lost.project_id, lost.branches["main"]
        for (name, at), heads in lost.heads.items():
            assert project.heads(lost.branches[name], at) == heads, (name, at)
        for sha256, content in lost.contents.items():
            assert project.http.get(f"/projects/{project.id}/objects/{sha256}").content == content
        assets = project.http.get("/assets", params={"project_id": project.id, "prefix": "Content/x"}).json()["items"]
        assert (assets[0]["tags"], assets[0]["metadata"], assets[0]["last_version"]) == (["hero"], {"lod": 2}, 3)
        assert numbers_of(project) == lost.numbers

        rules = project.http.get(f"/projects/{project.id}/path-permissions").json()["rules"]
        assert rules == RULES
        assert project.http.get(f"/projects/{project.id}/typemap").json()["rules"] == TYPEMAP
        label = project.http.get(f"/projects/{project.id}/labels/alpha").json()
        assert (label["branch_id"], label["at"]) == (project.main, 3)
        main = project.http.get(f"/branches/{project.main}").json()
        assert {name: main[name] for name in PROTECTION} == PROTECTION
        on_work = {"project_id": project.id, "branch_id": lost.branches["work"], "prefix": "leak"}
        (leak,) = project.http.get("/assets", params=on_work).json()["items"]
        assert project.http.get(f"/assets/{leak['id']}/versions/1/content").status_code == 410
        assert project.http.patch(f"/branches/{project.main}", json={"require_validation": False}).status_code == 200

        # A later merge knows the earlier ones: what was merged then is no question now.
        landed = merge(project, lost.branches["work"], project.main)
        assert (landed["status"], landed["conflicts_count"], landed["paths_count"]) == ("merged", 0, 2)

        # Work goes on: numbers continue, bases are the heads that were, and refs/ gets what is new.
        edit = {"action": "edit", "path": "Content/x", "base_version": 2, "sha256": project.put(b"after")}
        assert project.submit([edit]) == lost.newest + 2
        assert project.heads()["Content/x"][0] == 4
        wait_until_read(api.owner_url)
    again = rebuild(cluster, lost.store, empty_database)
    assert (again.returncode, again.stdout) == (1, "")
    assert "already" in again.stderr


def test_missing_and_damaged_objects_are_named_and_can_be_healed(
    cluster, depot_template, tmp_path, lost, empty_database, running_api_factory
):
    missing, damaged = sorted(lost.contents)[:2]
    paths = {sha: lost.store / "objects" / sha[:2] / f"{sha}.bin.gz" for sha in (missing, damaged)}
    paths[missing].unlink()
    paths[damaged].write_bytes(paths[damaged].read_bytes()[:-1] + b"x")
    done = rebuild(cluster, lost.store, empty_database)
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert report["objects_missing"] == [missing]
    assert list(report["objects_damaged"]) == [damaged]
    assert report["objects_verified"] == len(lost.contents) - 2
    make_project, running_api = running_api_factory
    with running_api(cluster, depot_template, tmp_path, store=lost.store, database=empty_database) as api:
        project = make_project(api)
        project.id, project.main = lost.project_id, lost.branches["main"]
        assert project.heads() == lost.heads["main", lost.newest]
        for sha256 in (missing, damaged):
            url = f"/projects/{project.id}/objects/{sha256}"
            assert project.http.get(url).status_code in (404, 502)
            project.put(lost.contents[sha256])
            assert project.http.get(url).content == lost.contents[sha256]


def test_a_changelist_that_is_half_there_is_left_out(cluster, lost, empty_database):
    directory = lost.store / "refs" / lost.project_id
    documents = {path: json.loads(path.read_bytes()) for path in directory.glob("2*.json")}
    half = next(path for path, ref in documents.items() if ref["changelist_no"] == 5 and ref["path"] == "b/z")
    half.unlink()
    done = rebuild(cluster, lost.store, empty_database)
    assert done.returncode == 1, done.stderr
    assert [one["changelist_no"] for one in json.loads(done.stdout)["changelists_incomplete"]] == [5]
    with psycopg.connect(cluster.url(empty_database, "depot_owner")) as owner:
        numbers = owner.execute("SELECT number FROM changelists WHERE number IS NOT NULL ORDER BY number").fetchall()
        last = owner.execute("SELECT last_no FROM changelist_counters").fetchone()
    assert [number for (number,) in numbers] == [number for number in lost.numbers if number != 5]
    assert last == (lost.newest,)


def test_a_broken_document_stops_it_and_changes_nothing(cluster, lost, empty_database):
    (lost.store / "refs" / lost.project_id / "project.json").write_text("{")
    done = rebuild(cluster, lost.store, empty_database)
    assert (done.returncode, done.stdout) == (1, "")
    assert "cannot be used" in done.stderr
    with psycopg.connect(cluster.url(empty_database, "depot_owner")) as owner:
        assert owner.execute("SELECT count(*) FROM users").fetchone() == (0,)


def test_not_a_store(cluster, tmp_path, empty_database):
    done = rebuild(cluster, tmp_path, empty_database)
    assert (done.returncode, done.stdout) == (1, "")
    assert "refs is not there" in done.stderr


FORMAT_2 = ("path_permissions", "typemap", "labels", "approve_role", "required_approvals", "source_branch_id")


def test_documents_of_format_1_are_read_and_what_they_lack_is_said(cluster, lost, empty_database):
    for path in (lost.store / "refs" / lost.project_id).glob("*.json"):
        if path.name.startswith(("merge_", "obliteration_")):
            path.unlink()
            continue
        document = json.loads(path.read_bytes())
        older = {name: value for name, value in document.items() if name not in (*FORMAT_2, "source_version")}
        path.write_text(json.dumps(older | {"format": 1}))
    done = rebuild(cluster, lost.store, empty_database)
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    said = " ".join(report["not_in_refs"])
    assert report["changelists"] == len(lost.numbers)
    assert all(word in said for word in ("path permissions", "typemap", "labels", "approve", "merged", "obliterated"))
    with psycopg.connect(cluster.url(empty_database, "depot_owner")) as owner:
        actions = owner.execute("SELECT action FROM changelist_items WHERE path = 'merged' ORDER BY 1").fetchall()
    assert actions == [("add",), ("add",), ("edit",)]
