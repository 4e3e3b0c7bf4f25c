"""A receiver of webhooks that does as a test tells it, and a service that may send to it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

WAIT_SECONDS = 40
SETTINGS = {"WEBHOOK_ALLOW_PRIVATE": "true", "WEBHOOK_MAX_ATTEMPTS": "4", "WEBHOOK_RETRY_SECONDS": "0.1"}


@dataclass(frozen=True)
class Received:
    headers: dict[str, str]
    body: bytes
    answered: int


@dataclass
class Receiver:
    """Answers with `status_of(how many came before)`; `received` has every request."""

    url: str
    status_of: Callable[[int], int] = lambda _before: 204
    received: list[Received] = field(default_factory=list)

    def accepted(self) -> list[Received]:
        return [one for one in self.received if one.answered < 300]

    def wait_for(self, count: int, accepted: bool = True) -> list[Received]:
        deadline = time.monotonic() + WAIT_SECONDS
        while len(found := self.accepted() if accepted else self.received) < count:
            assert time.monotonic() < deadline, f"{len(found)} of {count} came"
            time.sleep(0.02)
        return list(found)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                status = made.status_of(len(made.received))
                made.received.append(Received(dict(self.headers), body, status))
            self.send_response(status)
            self.send_header("Location", made.url)
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = Receiver(f"http://127.0.0.1:{server.server_port}/hook?token=1")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def sending_api(cluster, depot_template, tmp_path_factory: pytest.TempPathFactory, running_api_factory):
    """A service whose webhooks may go to this machine, and try again soon."""
    _, running_api = running_api_factory
    directory: Path = tmp_path_factory.mktemp("sending")
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:  # only while it starts: others have services of their own
            for name, value in SETTINGS.items():
                patch.setenv(name, value)
            running = stack.enter_context(running_api(cluster, depot_template, directory))
        yield running


@pytest.fixture
def hooked(sending_api, running_api_factory):
    """A project on that service."""
    make_project, _ = running_api_factory
    return make_project(sending_api)
