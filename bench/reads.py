"""Reads over REST: latency with many clients, and a large manifest as a stream."""

import http.client
import json
import multiprocessing
import statistics
import time
from urllib.parse import urlsplit

from bench.results import Results, timed
from bench.stack import Stack

CLIENTS = 8
REQUESTS_PER_CLIENT = 400
MANIFEST_PATHS = 100_000
ITEMS_PER_CALL = 10_000
EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


class Api:
    """The REST API over one kept connection."""

    def __init__(self, url: str, token: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc)
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def call(self, method: str, path: str, body: object = None, accept: str = "application/json") -> bytes:
        payload = None if body is None else json.dumps(body)
        self._connection.request(method, path, payload, {**self._headers, "Accept": accept})
        response = self._connection.getresponse()
        content = response.read()
        if response.status >= 400:
            raise RuntimeError(f"{method} {path}: {response.status} {content[:500]!r}")
        return content

    def connection_put(self, path: str, content: bytes) -> None:
        self._connection.request("PUT", path, content, self._headers)
        self._connection.getresponse().read()

    def json(self, method: str, path: str, body: object = None) -> dict[str, str]:
        answer: dict[str, str] = json.loads(self.call(method, path, body))
        return answer


def seed_paths(api: Api, paths: int) -> tuple[str, str]:
    """A project with that many paths on main, all of one content. Returns the branch and some asset."""
    project = api.json("POST", "/projects", {"name": "many"})
    api.call("PUT", f"/projects/{project['id']}/objects/{EMPTY_SHA256}")
    branch = project["default_branch_id"]
    changelist = api.json("POST", "/changelists", {"project_id": project["id"], "branch_id": branch})["id"]
    for start in range(0, paths, ITEMS_PER_CALL):
        numbers = range(start, start + ITEMS_PER_CALL)
        items = [
            {"action": "add", "path": f"Content/d{n % 500:03d}/f{n:06d}.uasset", "sha256": EMPTY_SHA256}
            for n in numbers
        ]
        api.call("POST", f"/changelists/{changelist}/items", {"items": items})
    api.call("POST", f"/changelists/{changelist}/submit")
    row = json.loads(api.call("GET", f"/branches/{branch}/manifest?limit=1"))["items"][0]
    return branch, row["asset_id"]


def client_latencies(url: str, token: str, path: str) -> list[float]:
    api = Api(url, token)
    return [timed(lambda: api.call("GET", path)) for _ in range(REQUESTS_PER_CLIENT)]


def bench_reads(results: Results, stack: Stack) -> None:
    api = Api(stack.api_url, stack.token)
    seeding: list[tuple[str, str]] = []
    seconds = timed(lambda: seeding.append(seed_paths(api, MANIFEST_PATHS)))
    results.add(f"submit of {MANIFEST_PATHS:,} items over REST", f"{seconds:.1f} s", "")
    branch, asset = seeding[0]
    routes = {"GET /assets/{id}": f"/assets/{asset}", "manifest page": f"/branches/{branch}/manifest?limit=100"}
    with multiprocessing.get_context("spawn").Pool(CLIENTS) as pool:
        for what, path in routes.items():
            started = time.perf_counter()
            answers = pool.starmap(client_latencies, [(stack.api_url, stack.token, path)] * CLIENTS)
            rate = CLIENTS * REQUESTS_PER_CLIENT / (time.perf_counter() - started)
            p99 = statistics.quantiles([second for answer in answers for second in answer], n=100)[98]
            results.add(f"{what}, {CLIENTS} clients, 1 worker", f"p99 {p99 * 1000:.0f} ms, {rate:.0f}/s", "p99 < 50 ms")
    stream = f"/branches/{branch}/manifest"
    seconds = statistics.median(timed(lambda: api.call("GET", stream, accept="application/x-ndjson")) for _ in range(5))
    results.add(f"manifest of {MANIFEST_PATHS:,} paths, streamed", f"{seconds:.2f} s", "< 2 s")
