"""Submit: what it refuses, what it does, and that the same request twice is the same result."""

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import psycopg
import pytest


def problem(response: httpx.Response) -> str:
    assert response.headers["content-type"] == "application/problem+json"
    return response.json()["type"].removeprefix("urn:asset-depot:problem:")


def test_add_edit_move_delete(project):
    one, two = project.put(b"one"), project.put(b"two")
    assert project.submit([{"action": "add", "path": "a/x", "sha256": one}]) == 1
    assert project.submit([{"action": "edit", "path": "a/x", "base_version": 1, "sha256": two}]) == 2
    moved = {"action": "move", "path": "b/x", "moved_from": "a/x", "base_version": 2, "sha256": two}
    assert project.submit([moved]) == 3
    assert project.submit([{"action": "delete", "path": "b/x", "base_version": 1}]) == 4
    assert project.submit([{"action": "add", "path": "a/x", "sha256": one}]) == 5
    assert [project.heads(at=n) for n in range(6)] == [
        {},
        {"a/x": (1, one)},
        {"a/x": (2, two)},
        {"b/x": (1, two)},
        {},
        {"a/x": (3, one)},  # a version number is never used twice
    ]


def test_no_target_branch(project):
    changelist = project.http.post("/changelists", json={"project_id": project.id}).json()["id"]
    item = {"action": "add", "path": "a", "sha256": project.put(b"a")}
    project.http.post(f"/changelists/{changelist}/items", json={"items": [item]})
    response = project.http.post(f"/changelists/{changelist}/submit")
    assert (response.status_code, problem(response)) == (409, "no-target-branch")


def test_empty_bundle(project):
    response = project.http.post(f"/changelists/{project.open([])}/submit")
    assert (response.status_code, problem(response)) == (409, "empty-changelist")


def test_stale_bases_are_listed_and_nothing_changes(project):
    project.add("a", b"1")
    content = project.put(b"2")
    edit = {"action": "edit", "path": "a", "base_version": 1, "sha256": content}
    late = project.open([edit, {"action": "add", "path": "b", "sha256": content}])
    project.submit([edit])
    before = project.heads()
    response = project.http.post(f"/changelists/{late}/submit")
    assert (response.status_code, problem(response)) == (409, "stale-base")
    assert response.json()["stale"] == [{"path": "a", "base_version": 1, "head_version": 2, "head_changelist_no": 2}]
    assert project.heads() == before


def test_content_that_was_never_sent(project):
    missing = "00" * 32
    changelist = project.open([{"action": "add", "path": "a", "sha256": missing}])
    response = project.http.post(f"/changelists/{changelist}/submit")
    assert (response.status_code, problem(response), response.json()["missing"]) == (409, "missing-content", [missing])


def test_a_truncated_object_stops_a_submit(api, project):
    content = project.put(b"whole")
    changelist = project.open([{"action": "add", "path": "a", "sha256": content}])
    path = api.store / "objects" / content[:2] / f"{content}.bin.gz"
    os.truncate(path, path.stat().st_size - 1)
    assert problem(project.http.post(f"/changelists/{changelist}/submit")) == "missing-content"
    project.put(b"whole")
    assert project.http.post(f"/changelists/{changelist}/submit").status_code == 200


def test_a_lock_of_someone_else_stops_a_submit(api, project):
    project.add("a", b"1")
    holder = project.member("contributor")
    with psycopg.connect(api.owner_url) as owner:
        owner.execute(
            """INSERT INTO locks (project_id, path_key, path, holder_id, expires_at)
               VALUES (%s, 'a', 'a', %s, now() + interval '1 hour')""",
            (project.id, holder.id),
        )
    edit = {"action": "edit", "path": "a", "base_version": 1, "sha256": project.put(b"2")}
    changelist = project.open([edit])
    response = project.http.post(f"/changelists/{changelist}/submit")
    assert (response.status_code, problem(response)) == (409, "locked")
    assert response.json()["locks"][0]["holder"] == holder.name
    with psycopg.connect(api.owner_url) as owner:
        owner.execute("UPDATE locks SET expires_at = now() WHERE project_id = %s", (project.id,))
    assert project.http.post(f"/changelists/{changelist}/submit").status_code == 200


def test_only_the_author_submits(project):
    changelist = project.open([{"action": "add", "path": "a", "sha256": project.put(b"a")}])
    other = project.member("contributor")
    assert other.http.post(f"/changelists/{changelist}/submit").status_code in (403, 409)
    viewer = project.member("viewer")
    assert viewer.http.post("/changelists", json={"project_id": project.id}).status_code == 403


def test_a_submitted_changelist_is_closed(project):
    item = {"action": "add", "path": "a", "sha256": project.put(b"a")}
    changelist = project.open([item])
    assert project.http.post(f"/changelists/{changelist}/submit").status_code == 200
    for response in (
        project.http.post(f"/changelists/{changelist}/submit"),
        project.http.post(f"/changelists/{changelist}/items", json={"items": [item]}),
        project.http.delete(f"/changelists/{changelist}"),
    ):
        assert (response.status_code, problem(response)) == (409, "changelist-closed")


def test_if_match(project):
    changelist = project.open([{"action": "add", "path": "a", "sha256": project.put(b"a")}])
    stale = {"If-Match": '"1"'}
    assert project.http.post(f"/changelists/{changelist}/submit", headers=stale).status_code == 412
    current = {"If-Match": project.http.get(f"/changelists/{changelist}").headers["etag"]}
    assert project.http.post(f"/changelists/{changelist}/submit", headers=current).status_code == 200


def test_an_idempotency_key_replays_the_answer(project):
    changelist = project.open([{"action": "add", "path": "a", "sha256": project.put(b"a")}])
    key = {"Idempotency-Key": f"submit-{changelist}"}
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda _: project.http.post(f"/changelists/{changelist}/submit", headers=key), range(8))
        )
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    other = project.open([{"action": "add", "path": "b", "sha256": project.put(b"b")}])
    response = project.http.post(f"/changelists/{other}/submit", headers=key)
    assert (response.status_code, problem(response)) == (422, "idempotency-key-reused")


@pytest.mark.parametrize(
    ("there", "new"),
    [("Content/Hero", "Content/Hero/a"), ("Content/Hero/a", "content/hero"), ("a/b/c/d", "a/b")],
)
def test_a_path_is_not_a_file_and_a_directory(project, there, new):
    project.add(there, b"1")
    changelist = project.open([{"action": "add", "path": new, "sha256": project.put(b"2")}])
    response = project.http.post(f"/changelists/{changelist}/submit")
    assert (response.status_code, problem(response)) == (422, "path-in-use")


def test_a_file_makes_room_for_a_directory_in_one_changelist(project):
    project.add("Hero", b"1")
    content = project.put(b"2")
    gone = {"action": "delete", "path": "Hero", "base_version": 1}
    project.submit([gone, {"action": "add", "path": "Hero/a", "sha256": content}])
    assert set(project.heads()) == {"Hero/a"}


def test_paths_that_differ_only_in_case(project):
    project.add("Content/Hero.uasset", b"1")
    content = project.put(b"2")
    changelist = project.open([])
    items = [{"action": "add", "path": "content/hero.UASSET", "sha256": content}]
    response = project.http.post(f"/changelists/{changelist}/items", json={"items": items})
    assert (response.status_code, problem(response)) == (422, "path-in-use")
    assert "Content/Hero.uasset" in response.json()["detail"]


def test_of_concurrent_edits_from_one_base_one_wins(project):
    project.add("a", b"0")
    contents = [project.put(f"{n}".encode()) for n in range(1, 9)]
    edits = [{"action": "edit", "path": "a", "base_version": 1, "sha256": content} for content in contents]
    changelists = [project.open([edit]) for edit in edits]
    start = threading.Barrier(len(changelists))

    def submit(changelist: str) -> httpx.Response:
        with project.api.client() as http:
            start.wait()
            return http.post(f"/changelists/{changelist}/submit")

    with ThreadPoolExecutor(len(changelists)) as pool:
        answers = list(pool.map(submit, changelists))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7
    winner = next(n for n, answer in enumerate(answers) if answer.status_code == 200)
    assert project.heads() == {"a": (2, contents[winner])}


def test_kill_9_loses_nothing_acknowledged(cluster, depot_template, tmp_path, running_api_factory):
    """All or nothing, also under kill -9 (invariant 4)."""
    make_project, running_api = running_api_factory
    with running_api(cluster, depot_template, tmp_path) as api:
        project = make_project(api)
        content = project.put(b"x")
        acknowledged: list[int] = []
        enough = threading.Event()

        def submit_many() -> None:
            for number in range(500):
                items = [{"action": "add", "path": f"f{number}/{part}", "sha256": content} for part in range(20)]
                try:
                    project.submit(items)
                except httpx.TransportError:
                    return
                acknowledged.append(number)
                if len(acknowledged) == 15:
                    enough.set()

        worker = threading.Thread(target=submit_many)
        worker.start()
        assert enough.wait(60)
        api.process.send_signal(signal.SIGKILL)
        worker.join()
        name = api.owner_url.rsplit("/", 1)[1]
    restarted = running_api(cluster, depot_template, tmp_path, store=api.store, database=name)
    with restarted as again, again.client() as http:
        project.http, project.api = http, again
        by_submit: dict[str, int] = {}
        for path in project.heads():
            by_submit[path.split("/")[0]] = by_submit.get(path.split("/")[0], 0) + 1
        assert set(by_submit.values()) == {20}, "a changelist is half there"
        assert {f"f{number}" for number in acknowledged} <= set(by_submit)
        assert len(by_submit) <= len(acknowledged) + 1
