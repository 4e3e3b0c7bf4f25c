"""A real depot with a merge in it, and a proxy before it in which a test can meddle."""

import http.client
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import pytest

from depot_api.client import DepotClient
from tests.depot_api.conftest import Api, api, make_project, project, running_api_factory
from tests.depot_api.merges.conftest import Merging, merging, new_merging

__all__ = ["api", "merging", "new_merging", "project", "running_api_factory"]

TEXT = "one\ntwo\nthree\nfour\nfive\n"


class CutOff(Exception):
    """Raised in a proxy's hook: the connection ends without an answer."""


Forward = Callable[[], None]
Hook = Callable[[int, str, Forward], None]


@contextmanager
def proxy(url: str, hook: Hook) -> Iterator[str]:
    """Calls `hook` with the number of each request, what it asks, and what forwards it (at latest after the hook)."""
    numbers = count(1)
    host = urlsplit(url).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answers: list[tuple[int, list[tuple[str, str]], bytes]] = []

            def forward() -> None:
                upstream = http.client.HTTPConnection(host, timeout=30)
                upstream.request(self.command, self.path, body, dict(self.headers))
                response = upstream.getresponse()
                answers.append((response.status, response.getheaders(), response.read()))
                upstream.close()

            try:
                hook(next(numbers), f"{self.command} {self.path}", forward)
            except CutOff:
                self.close_connection = True
                return
            if not answers:
                forward()
            status, headers, content = answers[0]
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = answer

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# Without the other commands, whose import is most of the start.
MERGES = [sys.executable, "-c", "from depot_ops.merge_commands import app; app()"]


def depot_ops_merges(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """The command as a process of its own."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DEPOT_")}
    return subprocess.Popen(
        [*MERGES, *arguments],
        env=inherited | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def begin_with_texts(api: Api, texts: int = 1, text: str = TEXT) -> tuple[Merging, dict[str, Any]]:
    """In a project of its own: a merge of a plain path, and of texts that both sides changed in different lines."""
    project = make_project(api)
    merging = Merging(project, {"main": project.main})
    rules = {"rules": [{"pattern": "*.ini", "mergeable": True}]}
    merging.ok("PUT", f"/projects/{project.id}/typemap", json=rules)
    names = [f"t{n}.ini" for n in range(texts)]
    merging.submit("main", [["add", "plain", "1"], *(["add", name, text] for name in names)])
    merging.branch("dev")
    merging.submit("dev", [["edit", "plain", "2"], *(["edit", name, text.replace("one", "ONE")] for name in names)])
    merging.submit("main", [["edit", name, text.replace("five", "FIVE")] for name in names])
    return merging, merging.begin("dev", "main")


@pytest.fixture
def client(api: Api) -> Iterator[DepotClient]:
    with DepotClient(api.url, api.token) as depot:
        yield depot
