"""refs/: one document for each path of each submitted changelist, none lost to a kill, none written twice over."""

import json
import signal
import time
from pathlib import Path

import psycopg
import pytest

from depot_api.blobstore.refs import VersionRef

WAIT_SECONDS = 30


def documents(store: Path, project_id: str) -> list[VersionRef]:
    directory = store / "refs" / project_id
    names = [path for path in directory.glob("*.json") if path.name[0].isdigit()]
    return sorted(
        (VersionRef.model_validate_json(path.read_bytes()) for path in names),
        key=lambda ref: (ref.changelist_no, ref.path),
    )


def wait_for(store: Path, project_id: str, count: int) -> list[VersionRef]:
    deadline = time.monotonic() + WAIT_SECONDS
    while len(found := documents(store, project_id)) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count}"
        time.sleep(0.05)
    return found


def test_every_change_of_a_path_is_a_document(api, project):
    one, two = project.put(b"one"), project.put(b"two!")
    project.submit([{"action": "add", "path": "a/x", "sha256": one}])
    project.submit([{"action": "edit", "path": "a/x", "base_version": 1, "sha256": two}])
    moved = {"action": "move", "path": "b/x", "moved_from": "a/x", "base_version": 2, "sha256": two}
    project.submit([moved])
    project.submit([{"action": "delete", "path": "b/x", "base_version": 1}])
    found = wait_for(api.store, project.id, 5)
    facts = [(r.changelist_no, r.path, r.version, r.sha256, r.action, r.moved_from, r.moved_to) for r in found]
    assert facts == [
        (1, "a/x", 1, one, "add", None, None),
        (2, "a/x", 2, two, "edit", None, None),
        (3, "a/x", None, None, "move", None, "b/x"),
        (3, "b/x", 1, two, "move", "a/x", None),
        (4, "b/x", None, None, "delete", None, None),
    ]
    assert [ref.changelist_refs for ref in found] == [1, 1, 2, 2, 1]
    assert {(ref.branch, ref.author.username) for ref in found} == {("main", "admin")}
    assert [ref.size_bytes for ref in found] == [3, 4, None, 4, None]


def test_project_branch_and_asset_facts(api, project):
    lead = project.member("lead")
    branch = project.http.post("/branches", json={"project_id": project.id, "name": "release/1"}).json()
    body = {"project_id": project.id, "path": "Content/a", "tags": ["hero"], "metadata": {"lod": 2}}
    asset = project.http.post("/assets", json=body).json()
    directory = api.store / "refs" / project.id
    deadline = time.monotonic() + WAIT_SECONDS
    while not (directory / f"asset_{asset['id']}.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    facts = json.loads((directory / "project.json").read_bytes())
    assert (facts["name"], facts["default_branch_id"]) == (project.name, project.main)
    assert {(m["user"]["username"], m["role"]) for m in facts["members"]} == {("admin", "owner"), (lead.name, "lead")}
    made = json.loads((directory / f"branch_{branch['id']}.json").read_bytes())
    assert (made["name"], made["parent_id"], made["parent_at"]) == ("release/1", project.main, 0)
    assert (directory / f"branch_{project.main}.json").exists()
    assert json.loads((directory / f"asset_{asset['id']}.json").read_bytes())["metadata"] == {"lod": 2}


def test_kill_9_loses_none(cluster, depot_template, tmp_path, running_api_factory):
    make_project, running_api = running_api_factory
    with running_api(cluster, depot_template, tmp_path) as api:
        project = make_project(api)
        content = project.put(b"x")
        for number in range(5):
            items = [{"action": "add", "path": f"f{number}/{part}", "sha256": content} for part in range(400)]
            project.submit(items)
        api.process.send_signal(signal.SIGKILL)
        api.process.wait()
        name = api.owner_url.rsplit("/", 1)[1]
    with running_api(cluster, depot_template, tmp_path, store=api.store, database=name):
        found = wait_for(api.store, project.id, 2000)
    assert {ref.path for ref in found} == {f"f{number}/{part}" for number in range(5) for part in range(400)}


def end_the_lead(api) -> None:
    with psycopg.connect(api.owner_url.replace("depot_owner", "postgres"), autocommit=True) as admin:
        ended = admin.execute(
            """SELECT count(pg_terminate_backend(l.pid)) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
               WHERE l.locktype = 'advisory' AND l.granted AND d.datname = current_database()"""
        ).fetchone()
    assert ended == (1,)


def test_a_restored_dump_with_transactions_of_the_future(own_api, running_api_factory):
    """As pg_restore into a young cluster leaves it: events and cursors with ids that this cluster has yet to reach."""
    make_project, _ = running_api_factory
    project = make_project(own_api)
    for path in ("a", "b"):
        project.add(path, b"x")
    wait_for(own_api.store, project.id, 2)
    url = f"/projects/{project.id}/events"
    before = project.http.get(url).json()["items"]
    with psycopg.connect(own_api.owner_url) as owner:
        owner.execute("ALTER TABLE events DISABLE TRIGGER append_only")
        owner.execute("UPDATE events SET xact_id = (1000000000000 + id)::text::xid8")
        owner.execute("UPDATE outbox_consumers SET xact_id = (1000000000000 + event_id)::text::xid8")
        owner.execute("ALTER TABLE events ENABLE TRIGGER append_only")
    project.add("c", b"x")
    end_the_lead(own_api)
    assert [ref.path for ref in wait_for(own_api.store, project.id, 3)] == ["a", "b", "c"]
    assert project.http.get(url).json()["items"][:-1] == before
    after = project.http.get(url, params={"after": before[-1]["cursor"]}).json()["items"]
    assert [event["payload"]["number"] for event in after] == [3]
    with psycopg.connect(own_api.owner_url) as owner, pytest.raises(psycopg.errors.RestrictViolation):
        owner.execute("UPDATE events SET kind = 'other'")


def test_a_lost_session_hands_the_lead_over(own_api, running_api_factory):
    make_project, _ = running_api_factory
    project = make_project(own_api)
    project.add("a", b"a")
    wait_for(own_api.store, project.id, 1)
    end_the_lead(own_api)
    project.add("b", b"b")
    wait_for(own_api.store, project.id, 2)


@pytest.mark.parametrize("table", ["outbox_consumers", "webhook_secrets"])
def test_the_service_role_cannot_read_the_machinery(api, table):
    with psycopg.connect(api.service_url) as service, pytest.raises(psycopg.errors.InsufficientPrivilege):
        service.execute(psycopg.sql.SQL("SELECT FROM {}").format(psycopg.sql.Identifier(table)))
