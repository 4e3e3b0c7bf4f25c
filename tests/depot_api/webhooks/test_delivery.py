"""Deliveries: signed, at least once, in order; given up, replayed, and never lost to a kill."""

import hashlib
import hmac
import json
import signal
import time

import psycopg
import pytest

SUBMITTED = ["changelist.submitted"]


def hook(project, url: str, kinds: list[str] | None = None) -> dict:
    response = project.http.post(f"/projects/{project.id}/webhooks", json={"url": url, "kinds": kinds or []})
    assert response.status_code == 201, response.text
    return response.json()


def deliveries(project, webhook: dict, **query: str) -> list[dict]:
    response = project.http.get(f"/projects/{project.id}/webhooks/{webhook['id']}/deliveries", params=query)
    assert response.status_code == 200, response.text
    return response.json()["items"]


def wait_for_status(project, webhook: dict, status: str, count: int) -> list[dict]:
    deadline = time.monotonic() + 40
    while len(found := deliveries(project, webhook, status=status)) < count:
        assert time.monotonic() < deadline, deliveries(project, webhook)
        time.sleep(0.05)
    return found


def numbers(received) -> list[int]:
    return [json.loads(one.body)["payload"]["number"] for one in received]


def test_a_delivery_is_the_event_signed(hooked, receiver):
    webhook = hook(hooked, receiver.url, SUBMITTED)
    hooked.add("a", b"a")
    [one] = receiver.wait_for(1)
    timestamp = one.headers["X-Depot-Timestamp"]
    expected = hmac.new(webhook["secret"].encode(), f"{timestamp}.".encode() + one.body, hashlib.sha256).hexdigest()
    assert one.headers["X-Depot-Signature"] == f"sha256={expected}"
    assert abs(int(timestamp) - time.time()) < 60
    assert one.headers["X-Depot-Event"] == "changelist.submitted"
    assert one.headers["Host"] == receiver.url.split("/")[2]
    page = hooked.http.get(f"/projects/{hooked.id}/events").json()["items"]
    assert json.loads(one.body) == next(event for event in page if event["kind"] == "changelist.submitted")
    [delivery] = wait_for_status(hooked, webhook, "delivered", 1)
    assert one.headers["X-Depot-Delivery"] == delivery["id"]
    assert (delivery["attempts"], delivery["last_status"], delivery["last_error"]) == (1, 204, None)


def test_failures_are_tried_again_and_the_order_holds(hooked, receiver):
    receiver.status_of = lambda before: 500 if before % 3 else 204
    hook(hooked, receiver.url, SUBMITTED)
    for number in range(6):
        hooked.add(f"a{number}", b"a")
    assert numbers(receiver.wait_for(6)) == [1, 2, 3, 4, 5, 6]
    assert numbers(receiver.received) == sorted(numbers(receiver.received)), "one overtook another"
    assert len(receiver.received) > 6


def test_given_up_then_replayed(hooked, receiver):
    receiver.status_of = lambda _before: 503
    webhook = hook(hooked, receiver.url, SUBMITTED)
    hooked.add("a", b"a")
    [dead] = wait_for_status(hooked, webhook, "dead", 1)
    assert (dead["attempts"], dead["last_status"]) == (4, 503)
    assert "503" in dead["last_error"]
    receiver.status_of = lambda _before: 200
    hooked.add("b", b"b")
    assert numbers(receiver.wait_for(1)) == [2], "a dead one holds nothing up"
    replay = f"/projects/{hooked.id}/webhooks/{webhook['id']}/deliveries/{dead['id']}/replay"
    assert hooked.http.post(replay).json()["status"] == "pending"
    again = receiver.wait_for(2)[1]
    assert (numbers([again]), again.headers["X-Depot-Delivery"]) == ([1], dead["id"])
    wait_for_status(hooked, webhook, "delivered", 2)
    audit = hooked.http.get(f"/projects/{hooked.id}/audit").json()["items"]
    [replayed] = [row for row in audit if row["table_name"] == "webhook_deliveries"]
    assert (replayed["before"]["status"], replayed["after"]["status"]) == ("dead", "pending")


def test_a_redirect_is_a_failure(hooked, receiver):
    receiver.status_of = lambda _before: 307
    webhook = hook(hooked, receiver.url, SUBMITTED)
    hooked.add("a", b"a")
    [dead] = wait_for_status(hooked, webhook, "dead", 1)
    assert dead["last_status"] == 307
    assert len(receiver.received) == 4


def test_a_webhook_that_fails_holds_up_no_other(hooked, receiver):
    hook(hooked, "http://127.0.0.1:1/nobody-listens", SUBMITTED)
    hook(hooked, receiver.url, SUBMITTED)
    for number in range(3):
        hooked.add(f"a{number}", b"a")
    assert numbers(receiver.wait_for(3)) == [1, 2, 3]


def test_switched_off_and_on(hooked, receiver):
    webhook = hook(hooked, receiver.url, SUBMITTED)
    url = f"/projects/{hooked.id}/webhooks/{webhook['id']}"
    assert hooked.http.patch(url, json={"is_active": False}).json()["is_active"] is False
    other = hook(hooked, receiver.url + "&other=1", SUBMITTED)
    hooked.add("a", b"a")
    wait_for_status(hooked, other, "delivered", 1)
    assert deliveries(hooked, webhook) == []
    assert hooked.http.patch(url, json={"is_active": True}).json()["is_active"] is True
    hooked.add("b", b"b")
    wait_for_status(hooked, webhook, "delivered", 1)


def test_kill_9_leaves_no_gap(cluster, depot_template, tmp_path, receiver, running_api_factory, monkeypatch):
    make_project, running_api = running_api_factory
    monkeypatch.setenv("WEBHOOK_ALLOW_PRIVATE", "true")
    monkeypatch.setenv("WEBHOOK_RETRY_SECONDS", "0.05")
    receiver.status_of = lambda before: 500 if before % 4 == 1 else 204
    with running_api(cluster, depot_template, tmp_path) as api:
        project = make_project(api)
        hook(project, receiver.url, SUBMITTED)
        for number in range(40):
            project.add(f"a{number}", b"a")
        receiver.wait_for(3)
        api.process.send_signal(signal.SIGKILL)
        api.process.wait()
        name = api.owner_url.rsplit("/", 1)[1]
    with running_api(cluster, depot_template, tmp_path, store=api.store, database=name):
        receiver.wait_for(40)
        deadline = time.monotonic() + 20
        while set(numbers(receiver.accepted())) != set(range(1, 41)):
            assert time.monotonic() < deadline, numbers(receiver.accepted())
            time.sleep(0.05)
    assert numbers(receiver.received) == sorted(numbers(receiver.received)), "one overtook another"


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/", "https://[::1]/", "http://10.1.2.3/", "http://localhost/x"])
def test_private_addresses_are_refused(project, url):
    response = project.http.post(f"/projects/{project.id}/webhooks", json={"url": url})
    assert response.status_code == 422, response.text
    assert response.json()["errors"][0]["pointer"] == "/url"


def test_a_private_address_is_refused_when_sending_too(api, project, receiver):
    """As when a name begins to mean another address after the webhook was made."""
    webhook = hook(project, "http://192.0.2.1.example.invalid/", SUBMITTED)
    with psycopg.connect(api.owner_url) as owner:
        owner.execute("UPDATE webhooks SET url = %s WHERE id = %s", (receiver.url, webhook["id"]))
    project.add("a", b"a")
    deadline = time.monotonic() + 20
    while not (found := deliveries(project, webhook)) or found[0]["attempts"] == 0:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert "not a public address" in found[0]["last_error"]
    assert receiver.received == []
