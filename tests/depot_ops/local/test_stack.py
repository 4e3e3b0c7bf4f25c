"""What the stack needs to know before and while it starts, without one that runs."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from depot_ops.local.stack import StackError, StackOptions, _answers, _daemons_live, run


class Handler(BaseHTTPRequestHandler):
    daemons: list[dict[str, object]]

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_POST(self) -> None:
        self.do_GET()
        told = {"instance": {"daemonHealth": {"allDaemonStatuses": self.daemons}}}
        self.wfile.write(json.dumps({"data": told}).encode())

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def url() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_proxy_is_not_asked_about_this_machine(url, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert _answers(url)


@pytest.mark.parametrize(
    ("heartbeats", "live"), [((10.5, 11.0), True), ((9.0, 11.0), False), ((None, 11.0), False), ((10.0, 10.0), True)]
)
def test_daemons_live_when_each_was_heard_of_since_the_start(url, heartbeats, live):
    Handler.daemons = [{"required": True, "lastHeartbeatTime": heartbeat} for heartbeat in heartbeats]
    Handler.daemons.append({"required": False, "lastHeartbeatTime": None})
    assert _daemons_live(url, 10.0) is live


def test_a_directory_that_cannot_be_written_is_told_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StackError, match="--data-dir") as told:
        run(StackOptions(tmp_path / "file" / "data"), print, threading.Event())
    assert len(str(told.value).splitlines()) == 1
