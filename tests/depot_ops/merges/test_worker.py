"""`depot-ops merges work` and `list`, and the executor below them, against the real depot."""

import hashlib
import json
import signal
import time
from threading import Event
from uuid import uuid4

import psycopg
import pytest

from depot_api.client import DepotClient
from depot_api.client.models import Resolution
from depot_ops.merges.executor import Executor, Outcome
from tests.depot_ops.merges.conftest import TEXT, CutOff, begin_with_texts, depot_ops_merges, proxy

TIMEOUT_SECONDS = 30


def wait_until_merged(merging, merge):
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while (now := merging.merge(merge))["status"] != "merged":
        assert time.monotonic() < deadline, now
        time.sleep(0.01)
    return now


def run(*arguments, **environment):
    process = depot_ops_merges(*arguments, **environment)
    output, complaints = process.communicate(timeout=TIMEOUT_SECONDS)
    return process.returncode, output, complaints


@pytest.fixture
def signed_in(api):
    return {"DEPOT_URL": api.url, "DEPOT_TOKEN": api.token}


def test_a_running_worker_merges_what_comes_and_stops_when_told(api, signed_in):
    merging, merge = begin_with_texts(api)
    lead = merging.project.member("lead")  # of this project alone: other tests leave jobs of theirs
    worker = depot_ops_merges("work", **signed_in | {"DEPOT_TOKEN": lead.token})
    try:
        wait_until_merged(merging, merge)  # the worker has started
        for content in "345":
            merging.submit("dev", [["edit", "plain", content]])
            wait_until_merged(merging, merging.begin("dev", "main"))
    finally:
        worker.send_signal(signal.SIGTERM)
        output, complaints = worker.communicate(timeout=TIMEOUT_SECONDS)
    assert (worker.returncode, complaints) == (0, "")
    assert output.count("done") == 12
    assert merging.project.heads(merging.branches["main"])["plain"][1] == hashlib.sha256(b"5").hexdigest()


def test_once_tells_each_job_and_is_quiet_when_there_is_nothing(api, signed_in):
    _, merge = begin_with_texts(api)
    arguments = ("work", "--once", "--merge", merge["id"], "--json")
    code, output, _ = run(*arguments, **signed_in)
    reports = [json.loads(line) for line in output.splitlines()]
    assert code == 0
    assert [(one["job_type"], one["outcome"], one["job_status"]) for one in reports] == [
        ("auto_integrate", "done", "completed"),
        ("conflict_staging", "done", "completed"),
        ("submit_gate", "done", "completed"),
    ]
    assert run(*arguments, **signed_in) == (0, "", "")


def test_a_text_that_cannot_be_merged_waits_for_a_person(api, merging, client):
    merging.ok("PUT", f"/projects/{merging.project.id}/typemap", json={"rules": [{"pattern": "**", "mergeable": True}]})
    merging.submit("main", [["add", "a", TEXT]])
    merging.branch("dev")
    merging.submit("dev", [["edit", "a", TEXT.replace("one", "ours")], ["add", "b", "1"]])
    merging.submit("main", [["edit", "a", TEXT.replace("one", "theirs")]])
    merge = merging.begin("dev", "main")
    executor = Executor(client, "test")
    reports = list(executor.work(merge_id=merge["id"]))
    assert [one.outcome for one in reports] == [Outcome.DONE, Outcome.DONE]
    assert merging.merge(merge)["status"] == "conflicted"
    merging.resolve(merge, "a", "source")
    list(executor.work(merge_id=merge["id"]))
    assert merging.merge(merge)["status"] == "merged"


def test_a_failed_job_is_told_with_its_reason(api, signed_in):
    merging, merge = begin_with_texts(api)
    artist = merging.project.member("contributor")
    lock = {"project_id": merging.project.id, "branch_id": merging.branches["main"], "path": "plain", "base_version": 1}
    typemap = {"rules": [{"pattern": "*.ini", "mergeable": True}, {"pattern": "plain", "scope": "branch"}]}
    merging.ok("PUT", f"/projects/{merging.project.id}/typemap", json=typemap)
    assert artist.http.post("/locks", json=lock).status_code == 201
    code, output, _ = run("work", "--once", "--merge", merge["id"], **signed_in)
    assert code == 1
    assert f"failed     submit_gate of merge {merge['id']}" in output
    assert artist.name in output


def test_the_heartbeat_keeps_a_short_lease(api):
    merging, merge = begin_with_texts(api)
    renewed = Event()

    def slow(number, what, forward):
        if what.startswith("PATCH"):
            forward()
            renewed.set()
        if number == 3:
            time.sleep(3.5)  # longer than the lease: nothing but time ends one

    with proxy(api.url, slow) as url, DepotClient(url, api.token) as depot:
        [first, *_] = Executor(depot, "test", lease_seconds=3).work(merge_id=merge["id"])
    assert (first.outcome, first.attempt) == (Outcome.DONE, 1)
    assert renewed.is_set()
    assert merging.merge(merge)["status"] == "merged"


@pytest.mark.parametrize("number", [2, 3, 6, 7])
def test_who_lost_the_lease_says_so_and_changes_nothing_more(api, number):
    merging, merge = begin_with_texts(api)
    stop = Event()

    def rob(seen, what, forward):
        if seen != number:
            return
        stop.set()
        with psycopg.connect(api.owner_url) as owner:
            owner.execute(
                """UPDATE merge_jobs SET leased_until = now() - interval '1 second'
                   WHERE merge_id = %s AND leased_until > now()""",
                (merge["id"],),
            )
        assert merging.claim(merge, lease_seconds=600)

    with proxy(api.url, rob) as url, DepotClient(url, api.token) as depot:
        [only] = Executor(depot, "robbed", stop=stop).work(merge_id=merge["id"])
    assert only.outcome is Outcome.LOST
    job = merging.jobs(merge)["auto_integrate"]
    assert (job["status"], job["executor"]) == ("running", "test")


def test_stopped_between_two_texts_it_gives_the_job_back_with_what_it_has(api, client):
    merging, merge = begin_with_texts(api, texts=3)
    stop = Event()

    def stop_at_the_second_text(number, what, forward):
        if number == 7:
            stop.set()

    with proxy(api.url, stop_at_the_second_text) as url, DepotClient(url, api.token) as depot:
        [only] = Executor(depot, "stopped", stop=stop).work(merge_id=merge["id"])
    assert only.outcome is Outcome.GIVEN_BACK
    job = merging.jobs(merge)["auto_integrate"]
    assert (job["status"], job["error"]) == ("queued", "The executor stopped was stopped.")
    assert [one["resolution"] for one in merging.conflicts(merge).values()] == [Resolution.MERGED] * 2 + [None]


def test_what_cannot_be_read_gives_the_job_back_with_the_reason(api, client):
    text = f"{TEXT}{uuid4()}"  # what is removed from the store is no other test's
    merging, merge = begin_with_texts(api, text=text)
    sha256 = hashlib.sha256(text.replace("one", "ONE").encode()).hexdigest()
    for copy in api.store.rglob(f"*{sha256[4:]}*"):
        copy.unlink()
    [only] = Executor(client, "test").work(merge_id=merge["id"])
    assert only.outcome is Outcome.GIVEN_BACK
    assert sha256 in only.detail
    job = merging.jobs(merge)["auto_integrate"]
    assert (job["status"], job["error"]) == ("queued", only.detail)


def test_an_answer_that_was_cut_off_is_asked_for_again(api):
    merging, merge = begin_with_texts(api)
    cut = iter([3, 6])
    at = next(cut)

    def cut_off(number, what, forward):
        nonlocal at
        if number == at:
            at = next(cut, 0)
            raise CutOff

    with proxy(api.url, cut_off) as url, DepotClient(url, api.token) as depot:
        reports = list(Executor(depot, "test").work(merge_id=merge["id"]))
    assert [one.outcome for one in reports] == [Outcome.DONE] * 3
    assert merging.merge(merge)["status"] == "merged"


def test_what_waits_is_listed(api, merging, signed_in):
    merging.submit("main", [["add", "a", "1"]])
    merging.branch("dev")
    merge = merging.begin("dev", "main")
    code, output, _ = run("list", "--json", **signed_in)
    assert code == 0
    assert [one["job_type"] for one in json.loads(output) if one["merge_id"] == merge["id"]] == ["auto_integrate"]
    assert f"auto_integrate    merge {merge['id']}  attempt 1" in run("list", **signed_in)[1]


@pytest.mark.parametrize("command", [("work", "--once"), ("list",)])
@pytest.mark.parametrize(
    ("environment", "code", "why"),
    [
        ({}, 3, "DEPOT_TOKEN: not set"),
        ({"DEPOT_TOKEN": "wrong"}, 1, "token"),
        ({"DEPOT_TOKEN": "t", "DEPOT_URL": "http://127.0.0.1:1"}, 3, "cannot be reached"),
    ],
)
def test_a_depot_that_cannot_be_asked(api, command, environment, code, why):
    returncode, output, complaints = run(*command, **({"DEPOT_URL": api.url} | environment))
    assert (returncode, output) == (code, "")
    assert why in complaints


def test_a_worker_that_is_refused_stops(api):
    code, _, complaints = run("work", DEPOT_URL=api.url, DEPOT_TOKEN="wrong")
    assert code == 1
    assert "token" in complaints


def test_a_worker_waits_for_a_depot_that_is_not_there():
    worker = depot_ops_merges("work", DEPOT_URL="http://127.0.0.1:1", DEPOT_TOKEN="t")
    assert "cannot be reached" in worker.stderr.readline()
    assert worker.poll() is None
    worker.send_signal(signal.SIGTERM)
    worker.communicate(timeout=TIMEOUT_SECONDS)
    assert worker.returncode == 0
