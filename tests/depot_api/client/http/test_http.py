"""The transport against a real HTTP server that misbehaves on demand."""

import json
from http.server import BaseHTTPRequestHandler

import pytest

from depot_api.client.depot import DepotClient
from depot_api.client.http import Body, Patience, Transport
from depot_api.client.problems import ConnectionLost, OutcomeUnknown, ProblemError, Unreachable


def answer(handler: BaseHTTPRequestHandler, status: int, body: bytes = b"{}", **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True
    handler.connection.close()


def hang_up_once(handler: BaseHTTPRequestHandler, number: int) -> None:
    if number == 1:
        hang_up(handler)
    else:
        answer(handler, 200)


def test_an_upload_that_was_cut_off_is_sent_again_whole(server) -> None:
    pieces = [bytes([n]) * 100_000 for n in range(20)]
    with server(hang_up_once) as (url, bodies):
        transport = Transport(url, "token", 1)
        transport.request("PUT", "/x", body=Body(2_000_000, lambda: iter(pieces)))
        transport.close()
    assert bodies[1] == b"".join(pieces)


def test_what_cannot_be_repeated_is_not(server) -> None:
    with server(hang_up_once) as (url, bodies):
        with pytest.raises(OutcomeUnknown, match="not known"):
            Transport(url, "token", 1).request("POST", "/x", document={})
        assert len(bodies) == 1


def test_busy_is_waited_for(server) -> None:
    def busy_once(handler: BaseHTTPRequestHandler, number: int) -> None:
        answer(handler, 503 if number == 1 else 200, Retry_After="0")

    with server(busy_once) as (url, bodies):
        Transport(url, "token", 1).request("POST", "/x", document={"a": 1})
        assert bodies == [b'{"a": 1}', b'{"a": 1}']


def test_a_depot_that_says_when_to_come_back_is_asked_through_an_outage_that_ends(server, monkeypatch) -> None:
    def busy_twice(handler: BaseHTTPRequestHandler, number: int) -> None:
        answer(handler, 503 if number < 3 else 200, Retry_After="1")

    once = Patience(back_off_seconds=(0.01,))
    with server(busy_twice) as (url, bodies):
        Transport(url, "token", 1, once).request("POST", "/x", document={})
        assert len(bodies) == 3
    monkeypatch.setattr("depot_api.client.http.OUTAGE_SECONDS", 0.5)
    with server(busy_twice) as (url, _), pytest.raises(ProblemError):
        Transport(url, "token", 1, once).request("POST", "/x", document={})


def test_a_failure_without_retry_after_is_told_at_once(server) -> None:
    with server(lambda handler, _: answer(handler, 503)) as (url, bodies):
        with pytest.raises(ProblemError) as caught:
            Transport(url, "token", 1).request("GET", "/x")
        assert caught.value.status == 503
        assert len(bodies) == 1


def test_health_that_is_bad_is_an_answer_and_told_at_once(server) -> None:
    body = b'{"status": "unavailable", "checks": {"database": {"status": "failed"}}}'
    with server(lambda handler, _: answer(handler, 503, body, Retry_After="5")) as (url, bodies):
        health = DepotClient(url).health()
        assert (health.status, health.checks["database"]["status"]) == ("unavailable", "failed")
        assert len(bodies) == 1


def test_a_problem_keeps_its_members(server) -> None:
    document = {
        "type": "urn:asset-depot:problem:stale-base",
        "title": "Stale base",
        "status": 409,
        "detail": "1 item is stale",
        "errors": [{"detail": "d", "pointer": "/items/0"}],
        "stale": [{"path": "a"}],
    }
    body = json.dumps(document).encode()
    stale = pytest.raises(ProblemError, match="1 item is stale")
    with server(lambda handler, _: answer(handler, 409, body)) as (url, _), stale as caught:
        Transport(url, "token", 1).request("POST", "/x", document={})
    problem = caught.value
    assert (problem.slug, problem.errors, problem.extra) == (
        "stale-base",
        document["errors"],
        {"stale": document["stale"]},
    )
    assert problem.request_id


def test_an_answer_of_something_else_in_between_is_a_problem_too(server) -> None:
    told = pytest.raises(ProblemError, match="HTTP status 502")
    with server(lambda handler, _: answer(handler, 502, b"<html>bad gateway</html>")) as (url, _), told:
        Transport(url, "token", 1).request("GET", "/x")


def test_a_cut_off_answer_is_noticed(server) -> None:
    def cut_off(handler: BaseHTTPRequestHandler, _: int) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"x" * 10)
        handler.wfile.flush()
        hang_up(handler)

    with server(cut_off) as (url, _):
        transport = Transport(url, "token", 1)
        with pytest.raises(ConnectionLost):
            list(transport.read_chunks(transport.request("GET", "/x", stream=True)))


def test_a_wrong_address_is_told_at_once() -> None:
    with pytest.raises(Unreachable, match="cannot be reached"):
        Transport("http://127.0.0.1:1", "token", 1).request("GET", "/x")
    with pytest.raises(Unreachable, match="http://"):
        Transport("localhost:8000", "token", 1)
