import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import uuid4

import pytest

from depot_api.client import DepotClient, SubmitResult, SyncResult, submit_tree, sync_tree
from depot_api.client.models import Branch, Project


@dataclass(frozen=True)
class Depot:
    """A project of one test, and whole trees in and out of it."""

    client: DepotClient
    project: Project

    def branch(self) -> Branch:
        return self.client.find_branch(self.project.id, "main")

    def submit(self, root: Path, message: str = "test", *, delete_missing: bool = False) -> SubmitResult:
        return submit_tree(self.client, root, self.project, self.branch(), message, delete_missing=delete_missing)

    def sync(self, root: Path, at: int | None = None, *, force: bool = False) -> SyncResult:
        return sync_tree(self.client, root, self.project, self.branch(), at=at, force=force)


@pytest.fixture
def depot(api) -> Iterator[Depot]:
    with DepotClient(api.url, api.token) as client:
        yield Depot(client, client.create_project(f"project-{uuid4().hex}"))


Behaviour = Callable[[BaseHTTPRequestHandler, int], None]


@contextmanager
def misbehaving_server(behaviour: Behaviour) -> Iterator[tuple[str, list[bytes]]]:
    """A server that reads each body and then does as told; yields its address and the bodies it got."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            bodies.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            behaviour(self, len(bodies))

        do_GET = do_POST = do_PUT = handle_any

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_port}", bodies
        finally:
            running.shutdown()
            thread.join()


@pytest.fixture
def server() -> Callable[[Behaviour], AbstractContextManager[tuple[str, list[bytes]]]]:
    """Starts a real HTTP server that does to each request what it is told."""
    return misbehaving_server
