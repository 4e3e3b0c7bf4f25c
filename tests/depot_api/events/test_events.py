"""Events: every commit once and in order, by page and as a stream, to members only."""

import json
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import psycopg
import pytest

READ_SECONDS = 20


def all_events(project, limit: int = 1000) -> list[dict]:
    events, after = [], None
    while True:
        query = {"limit": limit} | ({"after": after} if after else {})
        page = project.http.get(f"/projects/{project.id}/events", params=query).json()
        events += page["items"]
        after = page["next_cursor"]
        if after is None:
            return events


def messages(response: httpx.Response) -> Iterator[dict]:
    """What a browser's EventSource would make of it."""
    fields: dict[str, str] = {}
    for line in response.iter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "data" in fields:
            yield {**json.loads(fields["data"]), "last_event_id": fields["id"], "event": fields["event"]}
            fields = {}


def test_pages_hold_every_event_once_and_in_order(project):
    for number in range(7):
        project.add(f"a{number}", b"a")
    events = all_events(project)
    assert [event["kind"] for event in events] == ["project.created"] + ["changelist.submitted"] * 7
    assert [event["payload"]["number"] for event in events[1:]] == list(range(1, 8))
    assert all_events(project, limit=3) == events
    behind = project.http.get(f"/projects/{project.id}/events", params={"after": events[4]["cursor"]}).json()
    assert behind["items"] == events[5:]


def test_a_slow_transaction_is_never_skipped(api, project):
    """Its event has a lower id than one that is committed before it."""
    insert = """INSERT INTO events (project_id, kind, actor_id, payload)
                SELECT %s, %s, created_by, '{}' FROM projects WHERE id = %s"""
    with psycopg.connect(api.owner_url) as slow:
        slow.execute(insert, (project.id, "slow", project.id))
        project.add("a", b"a")
        seen = all_events(project)
        assert [event["kind"] for event in seen] == ["project.created"], "shown before an older one was decided"
        slow.commit()
    after = {"after": seen[-1]["cursor"]}
    later = project.http.get(f"/projects/{project.id}/events", params=after).json()["items"]
    assert [event["kind"] for event in later] == ["slow", "changelist.submitted"]


def test_a_stream_shows_what_was_and_what_comes(project):
    project.add("a", b"a")
    with project.http.stream("GET", f"/projects/{project.id}/events/stream", timeout=READ_SECONDS) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        stream = messages(response)
        assert [next(stream)["event"] for _ in range(2)] == ["project.created", "changelist.submitted"]
        with project.api.client() as http, ThreadPoolExecutor(1) as pool:
            body = {"username": "admin", "role": "owner"}
            sent = pool.submit(http.post, f"/projects/{project.id}/members", json=body)
            assert next(stream)["event"] == "member.set"
            assert sent.result().status_code == 200


def test_last_event_id_resumes(project):
    for number in range(3):
        project.add(f"a{number}", b"a")
    events = all_events(project)
    headers = {"Last-Event-ID": events[1]["cursor"]}
    url = f"/projects/{project.id}/events/stream"
    with project.http.stream("GET", url, headers=headers, timeout=READ_SECONDS) as response:
        stream = messages(response)
        assert [next(stream)["last_event_id"] for _ in range(2)] == [event["cursor"] for event in events[2:]]


def test_a_stream_ends_when_the_membership_ends(api, project):
    viewer = project.member("viewer")
    url = f"/projects/{project.id}/events/stream"
    with viewer.http.stream("GET", url, timeout=READ_SECONDS) as response:
        stream = messages(response)
        assert [next(stream)["event"] for _ in range(2)] == ["project.created", "member.set"]
        with psycopg.connect(api.owner_url) as owner:
            owner.execute("DELETE FROM project_members WHERE user_id = %s", (viewer.id,))
        project.add("secret", b"s")
        assert list(stream) == []


def test_a_stream_does_not_hold_up_a_stop(own_api, running_api_factory):
    make_project, _ = running_api_factory
    project = make_project(own_api)
    url = f"/projects/{project.id}/events/stream"
    with project.http.stream("GET", url, timeout=READ_SECONDS) as response:
        stream = messages(response)
        assert next(stream)["event"] == "project.created"
        started = time.monotonic()
        threading.Timer(0.2, own_api.process.send_signal, [signal.SIGTERM]).start()
        assert list(stream) == []
        own_api.process.wait(10)
        assert time.monotonic() - started < 8


def test_strangers_and_bad_cursors(api, project):
    stranger = api.user("editor")
    for path in ("events", "events/stream", "audit"):
        assert stranger.http.get(f"/projects/{project.id}/{path}").status_code == 404
        assert httpx.get(f"{api.url}/projects/{project.id}/{path}").status_code == 401


@pytest.mark.parametrize("cursor", ["!!!", "WzEsMl0", "WyJhIl0", "WzE4NDQ2NzQ0MDczNzA5NTUxNjE1XQ", "Wy01XQ"])
@pytest.mark.parametrize("path", ["events", "events/stream"])
def test_cursors_that_no_route_gave(project, path, cursor):
    response = project.http.get(f"/projects/{project.id}/{path}", params={"after": cursor})
    assert (response.status_code, response.json()["type"]) == (422, "urn:asset-depot:problem:invalid")


def test_a_cursor_of_another_project(project, new_project):
    cursor = all_events(new_project())[0]["cursor"]
    for path in ("events", "events/stream"):
        response = project.http.get(f"/projects/{project.id}/{path}", params={"after": cursor})
        assert response.status_code == 422, response.text
