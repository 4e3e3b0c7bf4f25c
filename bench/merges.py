"""Merges in a project of a million paths: planning a wide one, landing ten thousand paths, and one small one after the
other through a worker and through Dagster."""

import hashlib
import json
import os
import signal
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench.reads import Api
from bench.results import Results, timed
from bench.seed import Seeded
from bench.stack import BIN, Stack, peak_resident_bytes

ITEMS_PER_CHANGELIST = 10_000
LANDED_PATHS = 10_000
POLL_SECONDS = 0.02
MERGED_TIMEOUT_SECONDS = 60


def bench_merges(results: Results, stack: Stack, seeded: Seeded, content: str, wide_paths: int) -> None:
    """`wide_paths` is 100,000 in a full run; `content` is a hash that the project has."""
    api = Api(stack.api_url, stack.token)
    lines = api.call("GET", f"/branches/{seeded.main}/manifest?at=1000000000", accept="application/x-ndjson")
    heads = [json.loads(line) for line in lines.splitlines()[1 : 1 + wide_paths]]
    wide = edited_branch(api, seeded, "wide", heads, content)
    ends = {"project_id": seeded.project, "source_branch_id": wide, "target_branch_id": seeded.main}
    with peak_resident_bytes(stack) as samples:
        seconds = [timed(lambda: api.call("POST", "/branch-merges?preview=true", ends)) for _ in range(3)]
    grown = (max(samples) - samples[0]) >> 20
    measured = f"{statistics.median(seconds):.2f} s, {max(samples) >> 20} MiB, {grown} more than idle"
    results.add(f"planning a merge of {wide_paths:,} changed paths", measured, "< 5 s, < 300 MB")
    narrow = edited_branch(api, seeded, "narrow", heads[:LANDED_PATHS], content)
    merge = api.json("POST", "/branch-merges", ends | {"source_branch_id": narrow, "submit": True})["id"]
    steps = {}
    while job := json.loads(api.call("POST", "/merge-jobs/claim", {"executor": "bench", "merge_id": merge}))["job"]:
        step = {"fencing_number": job["fencing_number"], "texts_tried": True}
        steps[job["job_type"]] = timed(lambda: api.call("POST", f"/merge-jobs/{job['id']}/step", step))  # noqa: B023
    results.add(f"staging {LANDED_PATHS:,} paths", f"{steps['auto_integrate']:.2f} s", "")
    results.add(f"landing {LANDED_PATHS:,} paths", f"{steps['submit_gate']:.2f} s", "< 3 s")


def edited_branch(api: Api, seeded: Seeded, name: str, heads: list[dict[str, object]], content: str) -> str:
    branch = api.json("POST", "/branches", {"project_id": seeded.project, "name": name})["id"]
    for start in range(0, len(heads), ITEMS_PER_CHANGELIST):
        items = [
            {"action": "edit", "path": head["path"], "base_version": head["version"], "sha256": content}
            for head in heads[start : start + ITEMS_PER_CHANGELIST]
        ]
        made = api.json("POST", "/changelists", {"project_id": seeded.project, "branch_id": branch})["id"]
        api.call("POST", f"/changelists/{made}/items", {"items": items})
        api.call("POST", f"/changelists/{made}/submit")
    return branch


def bench_execution(results: Results, stack: Stack, merges: int) -> None:
    """From POST /branch-merges to merged, of one path. The stack has Dagster, whose sensor would take the jobs too."""
    through_dagster = merge_seconds(Api(stack.api_url, stack.token), merges)
    results.add("merge of one path, through Dagster", f"median {statistics.median(through_dagster):.1f} s", "< 12 s")


def bench_worker(results: Results, stack: Stack, merges: int) -> None:
    with worker(stack):
        api = Api(stack.api_url, stack.token)
        merge_seconds(api, 1)  # the worker has started
        seconds = merge_seconds(api, merges)
    results.add("merge of one path, through a worker", f"median {statistics.median(seconds):.2f} s", "< 1 s")


@contextmanager
def worker(stack: Stack) -> Iterator[None]:
    environment = {**os.environ, "DEPOT_URL": stack.api_url, "DEPOT_TOKEN": stack.token}
    process = subprocess.Popen([BIN / "depot-ops", "merges", "work"], env=environment, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def merge_seconds(api: Api, merges: int) -> list[float]:
    project = api.json("POST", "/projects", {"name": f"merged {time.time_ns()}"})
    content = hashlib.sha256(b"bench").hexdigest()
    api.connection_put(f"/projects/{project['id']}/objects/{content}", b"bench")
    body = {"project_id": project["id"], "name": "dev"}
    dev = api.json("POST", "/branches", body)["id"]
    ends = {"project_id": project["id"], "source_branch_id": dev, "target_branch_id": project["default_branch_id"]}
    seconds = []
    for number in range(merges):
        made = api.json("POST", "/changelists", {"project_id": project["id"], "branch_id": dev})["id"]
        items = [{"action": "add", "path": f"f{number}", "sha256": content}]
        api.call("POST", f"/changelists/{made}/items", {"items": items})
        api.call("POST", f"/changelists/{made}/submit")
        seconds.append(merged_seconds(api, ends))
    return seconds


def merged_seconds(api: Api, ends: dict[str, str]) -> float:
    started = time.monotonic()
    merge = api.json("POST", "/branch-merges", ends | {"submit": True})["id"]
    while api.json("GET", f"/branch-merges/{merge}")["status"] != "merged":
        if time.monotonic() - started > MERGED_TIMEOUT_SECONDS:
            raise RuntimeError(f"merge {merge} did not land in {MERGED_TIMEOUT_SECONDS} s")
        time.sleep(POLL_SECONDS)
    return time.monotonic() - started
