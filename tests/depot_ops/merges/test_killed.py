"""A worker that is killed at any request, before or after the depot did what it asks: the merge lands once."""

import hashlib
import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event, Timer
from typing import Any

import psycopg

from depot_api.client import DepotClient
from depot_ops.merges.executor import Executor
from depot_ops.merges.worker import keep_working
from tests.depot_ops.merges.conftest import TEXT, CutOff, Forward, begin_with_texts, depot_ops_merges, proxy

BOTH = TEXT.replace("one", "ONE").replace("five", "FIVE")
TIMEOUT_SECONDS = 60
AT_ONCE = 6


@dataclass(frozen=True)
class Landed:
    """What a merge left behind."""

    status: str
    heads: dict[str, tuple[int, str]]
    main_history: int
    times_merged: int
    choices: dict[str, list[str]]


class Killer:
    """Kills the worker at its `at`-th request: before the depot hears of it, or after it has done it."""

    def __init__(self, at: int | None, after: bool) -> None:
        self.at, self.after = at, after
        self.worker: subprocess.Popen[str] | None = None
        self.asked: list[str] = []

    def __call__(self, number: int, what: str, forward: Forward) -> None:
        self.asked.append(what)
        if number != self.at:
            return
        if self.after:
            forward()
        assert self.worker is not None
        os.kill(self.worker.pid, signal.SIGKILL)
        self.worker.wait(TIMEOUT_SECONDS)
        raise CutOff


def landed(merging: Any, merge: dict[str, Any]) -> Landed:
    with psycopg.connect(merging.project.api.owner_url) as owner:
        # Not from the feed, which holds an event back while an older transaction of anybody's is open.
        count = "SELECT count(*) FROM events WHERE kind = 'merge.merged' AND payload ->> 'merge_id' = %s"
        times_merged = owner.execute(count, (merge["id"],)).fetchone()[0]
    main = merging.branches["main"]
    details = [
        merging.ok("GET", f"/merge-conflicts/{conflict['id']}") for conflict in merging.conflicts(merge).values()
    ]
    return Landed(
        status=merging.merge(merge)["status"],
        heads=merging.project.heads(main),
        main_history=len(merging.ok("GET", f"/branches/{main}/history", params={"limit": 1000})["items"]),
        times_merged=times_merged,
        choices={one["path"]: sorted({made["sha256"] for made in one["history"]}) for one in details},
    )


def finish(api: Any, merge: dict[str, Any]) -> None:
    """Another worker, when the dead one's lease has ended."""
    with psycopg.connect(api.owner_url) as owner:
        past = "UPDATE merge_jobs SET leased_until = now() WHERE merge_id = %s AND leased_until > now()"
        owner.execute(past, (merge["id"],))
    stop = Event()
    watch = Timer(TIMEOUT_SECONDS, stop.set)
    watch.start()
    with DepotClient(api.url, api.token) as depot:
        executor = Executor(depot, "second", stop=stop)
        for _ in keep_working(executor, stop, print, merge_id=merge["id"]):
            if depot.merge(merge["id"]).status == "merged":
                stop.set()
    watch.cancel()


def run(api: Any, killer: Killer) -> Landed:
    merging, merge = begin_with_texts(api)
    with proxy(api.url, killer) as url:
        arguments = ("work", "--once", "--merge", merge["id"])
        killer.worker = depot_ops_merges(*arguments, DEPOT_URL=url, DEPOT_TOKEN=api.token)
        _, complaints = killer.worker.communicate(timeout=TIMEOUT_SECONDS)
    killed = killer.at is not None
    assert killer.worker.returncode == (-signal.SIGKILL if killed else 0), complaints
    if killed and merging.merge(merge)["status"] != "merged":
        finish(api, merge)
    left = landed(merging, merge)
    merging.http.close()
    return left


def test_killed_at_every_request_the_result_is_that_of_an_undisturbed_worker(api):
    undisturbed = Killer(None, after=False)
    wanted = run(api, undisturbed)
    assert (wanted.status, wanted.times_merged, wanted.main_history) == ("merged", 1, 3)
    assert wanted.heads == {
        "plain": (3, hashlib.sha256(b"2").hexdigest()),
        "t0.ini": (4, hashlib.sha256(BOTH.encode()).hexdigest()),
    }
    asked = [what.split("?")[0].rsplit("/", 1)[-1] for what in undisturbed.asked]
    assert asked.count("step") == 4, asked
    assert any("/texts/" in what for what in undisturbed.asked)
    killers = [Killer(at, after) for at in range(1, len(asked) + 1) for after in (False, True)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        left = list(pool.map(lambda killer: run(api, killer), killers))
    different = {(killer.at, killer.after): one for killer, one in zip(killers, left, strict=True) if one != wanted}
    assert not different
