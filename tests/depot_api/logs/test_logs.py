"""One JSON object a line, with the id that the client gave; no secret, and nothing of the libraries in between."""

import json
import secrets
import signal
import subprocess
import sys
import time

import httpx

from depot_api.client import DepotClient

FIELDS = {"event", "level", "timestamp"}
REQUEST_FIELDS = FIELDS | {"method", "path", "status", "duration_seconds", "request_id"}


WAIT_SECONDS = 20


def logged(api, request_id: str) -> list[dict]:
    """All lines, once this request has its own: it is written after the answer."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        text = (api.store.parent / "api.log").read_text()
        lines = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        if any(line.get("request_id") == request_id for line in lines) or time.monotonic() > deadline:
            return lines
        time.sleep(0.01)


def test_every_line_is_an_event(api):
    request_id = f"test.{secrets.token_hex(8)}"
    answer = httpx.get(f"{api.url}/health", params={"q": "not-logged"}, headers={"X-Request-ID": request_id})
    assert answer.headers["X-Request-ID"] == request_id
    lines = logged(api, request_id)
    assert [line for line in lines if not line.keys() >= FIELDS] == []
    (request,) = [line for line in lines if line.get("request_id") == request_id]
    assert request.keys() == REQUEST_FIELDS
    assert (request["event"], request["path"], request["status"]) == ("request", "/health", 200)
    assert any(line.get("logger", "").startswith("uvicorn") for line in lines), "the server's own lines too"


def test_an_id_that_could_forge_a_line_is_replaced(api):
    answer = httpx.get(f"{api.url}/health/live", headers={"X-Request-ID": 'x"} {"event": "forged'})
    assert len(answer.headers["X-Request-ID"]) == 32


def test_what_a_run_did_is_found_by_its_origin(api, project):
    origin = f"run-{secrets.token_hex(8)}"
    with DepotClient(api.url, api.token, origin=origin) as depot:
        created = depot.create_project(f"project-{secrets.token_hex(4)}")
    with api.client() as http:
        (written, *_) = http.get(f"/projects/{created.id}/audit").json()["items"]
    assert written["request_id"].startswith(f"{origin}.")
    lines = logged(api, written["request_id"])
    assert [line["status"] for line in lines if line.get("request_id") == written["request_id"]] == [201]


def test_no_secret_is_logged(api):
    password = f"hunter2-{secrets.token_hex(8)}"
    httpx.post(f"{api.url}/auth/token", data={"username": "nobody", "password": password})
    httpx.get(f"{api.url}/projects", headers={"Authorization": f"Bearer {password}"})
    last = httpx.get(f"{api.url}/projects", params={"token": password})
    text = json.dumps(logged(api, last.headers["X-Request-ID"]))
    assert [secret for secret in (password, api.token, api.password) if secret in text] == []


def test_operations_log_as_well(tmp_path):
    spool = tmp_path / "spool"
    command = [sys.executable, "-m", "depot_ops", "wal", "collect", "--spool", str(spool), "--archive", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    line = json.loads(process.stderr.readline())
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert line.keys() >= FIELDS
    assert (line["event"], line["level"]) == ("wal collection failed", "warning")
