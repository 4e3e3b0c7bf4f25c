"""A project of a million paths over REST: submit, manifest, branches, diff, search, and many clients at once."""

import hashlib
import http.client
import json
import multiprocessing
import random
import statistics
import threading
import time
from functools import partial

from bench.merges import bench_merges
from bench.reads import Api
from bench.results import Results, timed
from bench.seed import Seeded, seed
from bench.stack import Stack

PATHS = 1_000_000
SINGLE_SUBMITS = 200
MANY_ITEMS = 10_000
CLIENT_PROCESSES, CLIENTS_PER_PROCESS = 2, 8
LOAD_SECONDS = 15
SUBMITS_OF_THIRTY = 1  # a submit is three requests: every tenth request belongs to one
SEARCHES = (
    "prefix=Content/Audio/d7/",
    "name=hero_77",
    "tag=rare",
    "type=wav&prefix=Content/FX",
    'metadata={"serial":4711}',
)


def bench_catalogue(results: Results, stack: Stack, paths: int) -> None:
    """`paths` is a million in a full run."""
    api = Api(stack.api_url, stack.token)
    project = api.json("POST", "/projects", {"name": f"catalogue of {paths}"})["id"]
    made: list[Seeded] = []
    seconds = timed(lambda: made.append(seed(stack.database_url, project, paths)))
    seeded, api = made[0], Api(stack.api_url, stack.token)  # the service closes connections that rest for minutes
    results.add(f"seeding {paths:,} paths in {seeded.changelists:,} changelists", f"{seconds:.0f} s", "minutes")
    content = hashlib.sha256(b"bench").hexdigest()
    api.connection_put(f"/projects/{project}/objects/{content}", b"bench")
    single = [submit(api, seeded, content, [f"New/one{n}"]) for n in range(SINGLE_SUBMITS)]
    results.add("submit of 1 item", percentiles(single), "p99 < 30 ms")
    many = [submit(api, seeded, content, [f"New/many{n}/f{i}" for i in range(MANY_ITEMS)]) for n in range(3)]
    results.add(f"submit of {MANY_ITEMS:,} items", f"{statistics.median(many):.2f} s", "< 3 s")
    stream = f"/branches/{seeded.main}/manifest"
    rate = paths / statistics.median(
        timed(lambda: api.call("GET", stream, accept="application/x-ndjson")) for _ in range(3)
    )
    results.add("manifest stream", f"{rate:,.0f} paths/s", "≥ 150,000/s")
    branches = [
        timed(partial(api.call, "POST", "/branches", {"project_id": project, "name": f"task{n}"})) for n in range(20)
    ]
    results.add("branch creation", f"median {statistics.median(branches) * 1000:.0f} ms", "< 50 ms")
    submit(api, seeded, content, [f"Dev/f{i}" for i in range(MANY_ITEMS)], seeded.branches["dev"])
    diff = f"/branches/{seeded.branches['dev']}/diff?against={seeded.branches['art']}"
    seconds = statistics.median(timed(lambda: api.call("GET", diff, accept="application/x-ndjson")) for _ in range(3))
    results.add(f"diff of two branches, {MANY_ITEMS:,} differences", f"{seconds:.2f} s", "< 1 s")
    searches = [timed(partial(api.call, "GET", f"/projects/{project}/search?{q}")) for q in SEARCHES * 20]
    results.add("search, five kinds", percentiles(searches), "p95 < 50 ms")
    bench_load(results, stack, seeded, content)
    bench_merges(results, stack, seeded, content, paths // 10)


def submit(api: Api, seeded: Seeded, content: str, paths: list[str], branch: str | None = None) -> float:
    """Seconds of the submit itself."""
    body = {"project_id": seeded.project, "branch_id": branch or seeded.main}
    changelist = api.json("POST", "/changelists", body)["id"]
    items = [{"action": "add", "path": path, "sha256": content} for path in paths]
    api.call("POST", f"/changelists/{changelist}/items", {"items": items})
    return timed(lambda: api.call("POST", f"/changelists/{changelist}/submit"))


def percentiles(seconds: list[float]) -> str:
    cuts = statistics.quantiles(seconds, n=100)
    return f"p50 {cuts[49] * 1000:.0f}, p95 {cuts[94] * 1000:.0f}, p99 {cuts[98] * 1000:.0f} ms"


def bench_load(results: Results, stack: Stack, seeded: Seeded, content: str) -> None:
    with multiprocessing.get_context("spawn").Pool(CLIENT_PROCESSES) as pool:
        arguments = [(stack.api_url, stack.token, seeded, content, number) for number in range(CLIENT_PROCESSES)]
        started = time.perf_counter()
        counts = pool.starmap(many_clients, arguments)
        seconds = time.perf_counter() - started
    requests, errors = (sum(column) for column in zip(*counts, strict=True))
    clients = CLIENT_PROCESSES * CLIENTS_PER_PROCESS
    measured = f"{requests / seconds:.0f} requests/s, {errors} errors"
    results.add(f"{clients} clients, reads and submits", measured, "≥ 800/s, no errors")


def many_clients(url: str, token: str, seeded: Seeded, content: str, number: int) -> tuple[int, int]:
    """(requests, errors) of the clients of one process."""
    counts = [[0, 0] for _ in range(CLIENTS_PER_PROCESS)]
    threads = [
        threading.Thread(target=one_client, args=(url, token, seeded, content, f"{number}-{n}", counts[n]))
        for n in range(CLIENTS_PER_PROCESS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(count[0] for count in counts), sum(count[1] for count in counts)


def one_client(url: str, token: str, seeded: Seeded, content: str, name: str, count: list[int]) -> None:
    api, rng, ends_at = Api(url, token), random.Random(name), time.monotonic() + LOAD_SECONDS
    (asset, *_) = json.loads(api.call("GET", f"/branches/{seeded.main}/manifest?limit=1"))["items"]
    reads = (
        f"/assets/{asset['asset_id']}",
        f"/branches/{seeded.main}",
        f"/branches/{seeded.main}/manifest?limit=20",
        f"/projects/{seeded.project}/changelists?limit=20",
        f"/assets/{asset['asset_id']}/versions",
    )
    number = 0
    while time.monotonic() < ends_at:
        try:
            if rng.randrange(30) < SUBMITS_OF_THIRTY:
                number += 1
                submit(api, seeded, content, [f"Load/{name}/f{number}"])
                count[0] += 3
            else:
                api.call("GET", rng.choice(reads))
                count[0] += 1
        except (RuntimeError, http.client.HTTPException, OSError):
            count[1] += 1
            api = Api(url, token)
