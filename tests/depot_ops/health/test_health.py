"""What the depot answers, and what that means."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from typer.testing import CliRunner

from depot_ops.evidence import Status
from depot_ops.health import check_service
from depot_ops.health_commands import app

GOOD = {"status": "ok", "checks": {"database": {"status": "ok"}, "storage": {"status": "ok", "free_bytes": 12345}}}


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/health"
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_healthy_depot_comes_with_its_figures():
    with answering(200, json.dumps(GOOD).encode()) as url:
        finding = check_service(url)
    assert finding.status is Status.HEALTHY
    assert finding.figures["storage_free_bytes"] == 12345
    assert 0 < float(finding.figures["latency_seconds"]) < 10


def test_an_unhealthy_depot_names_the_part_and_the_reason():
    broken = {**GOOD, "status": "unavailable"}
    broken["checks"] = {**GOOD["checks"], "database": {"status": "unavailable", "reason": "connection refused"}}
    with answering(503, json.dumps(broken).encode()) as url:
        finding = check_service(url)
    assert finding.status is Status.UNHEALTHY
    assert "database" in finding.detail
    assert "connection refused" in finding.detail
    assert "storage" not in finding.detail


@pytest.mark.parametrize("body", [b"<html>a proxy</html>", b"[]", b"{}", b'{"status": "ok"}', b'{"checks": []}', b"1"])
def test_an_answer_that_is_not_a_depots_is_unknown(body):
    with answering(200, body) as url:
        assert check_service(url).status is Status.UNKNOWN


def test_a_depot_that_does_not_answer_is_unhealthy():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        finding = check_service(f"http://127.0.0.1:{bound.getsockname()[1]}")
    assert finding.status is Status.UNHEALTHY


@pytest.mark.parametrize("url", ["http://no-such-host.invalid", "http://[", "not an address"])
def test_an_address_that_cannot_be_asked_is_unknown(url):
    assert check_service(url).status is Status.UNKNOWN


def test_the_command_exits_with_what_it_found(monkeypatch):
    with answering(200, json.dumps(GOOD).encode()) as url:
        monkeypatch.setenv("DEPOT_URL", url)
        healthy = CliRunner().invoke(app, ["--json"])
    assert healthy.exit_code == 0
    assert json.loads(healthy.stdout)["findings"][0]["check"] == "service_health"
    assert CliRunner().invoke(app, []).exit_code == 1
    monkeypatch.delenv("DEPOT_URL")
    unset = CliRunner().invoke(app, [])
    assert unset.exit_code == 3
    assert "DEPOT_URL" in unset.stderr
