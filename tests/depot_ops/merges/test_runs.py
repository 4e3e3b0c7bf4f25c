"""Merge jobs through Dagster: the sensor's requests, and the runs that they make, against the real depot."""

import time
from datetime import timedelta
from pathlib import Path

import dagster as dg
import psycopg
import pytest
import yaml
from dagster import DagsterEvent, DagsterEventType
from dagster._utils.tags import TagConcurrencyLimitsCounter

from depot_ops import merge_runs
from depot_ops.definitions import defs
from depot_ops.merge_runs import TARGET_BRANCH, merge_jobs
from tests.depot_ops.merges.conftest import begin_with_texts

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def environment(api, monkeypatch):
    """What the stack gives."""
    monkeypatch.setenv("DEPOT_URL", api.url)
    monkeypatch.setenv("DEPOT_TOKEN", api.token)


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def tick(instance):
    with dg.build_sensor_context(instance=instance) as context:
        return merge_jobs(context)


def requests(instance, merge):
    """Those of this merge; others of the same depot have theirs."""
    result = tick(instance)
    found = result.run_requests if isinstance(result, dg.SensorResult) else []
    return [request for request in found if request.tags["depot/merge"] == merge["id"]]


def run(instance, request):
    return defs.resolve_job_def("merge_execution").execute_in_process(
        run_config=request.run_config, tags=request.tags, instance=instance, raise_on_error=False
    )


def figures(result):
    [materialization] = result.asset_materializations_for_node("execute_merge_job")
    assert materialization.asset_key == dg.AssetKey("branch_merge")
    return {name: value.value for name, value in materialization.metadata.items()}


def why_it_failed(instance, result):
    return "".join(str(entry) for entry in instance.all_logs(result.run_id))


def test_one_run_carries_a_merge_through(api, instance):
    merging, merge = begin_with_texts(api)
    [request] = requests(instance, merge)
    job = merging.jobs(merge)["auto_integrate"]
    assert request.run_key == f"{job['id']}:0:0"
    assert request.tags == {
        "depot/project": merging.project.id,
        "depot/merge": merge["id"],
        "depot/merge_job": job["id"],
        TARGET_BRANCH: merging.branches["main"],
    }
    result = run(instance, request)
    assert result.success
    assert merging.merge(merge)["status"] == "merged"
    found = figures(result)
    assert (found["status"], found["paths"], found["conflicts"]) == ("merged", 2, 1)
    assert found["size_bytes"] == 1  # what came without a conflict
    assert 0 < found["duration_seconds"] < 30
    assert found["landed_as_changelist"] == merging.merge(merge)["landed_no"]
    assert requests(instance, merge) == []


def test_a_merge_that_waits_for_people_is_green_and_goes_on_when_they_chose(merging, instance):
    merging.submit("main", [["add", "a", "1"]])
    merging.branch("dev")
    merging.submit("dev", [["edit", "a", "2"]])
    merging.submit("main", [["edit", "a", "3"]])
    merge = merging.begin("dev", "main")
    [first] = requests(instance, merge)
    result = run(instance, first)
    assert result.success
    found = figures(result)
    assert (found["status"], found["unresolved_conflicts"]) == ("conflicted", 1)
    assert requests(instance, merge) == []
    merging.resolve(merge, "a", "source")
    [again] = requests(instance, merge)
    assert again.run_key != first.run_key
    assert run(instance, again).success
    assert merging.merge(merge)["status"] == "merged"


def test_a_failed_job_fails_the_run_with_its_reason_and_can_be_queued_again(merging, instance):
    merging.submit("main", [["add", "a", "1"]])
    merging.branch("dev")
    merging.submit("dev", [["edit", "a", "2"]])
    merging.ok("PATCH", f"/branches/{merging.branches['main']}", json={"require_review": True})
    merge = merging.begin("dev", "main")
    [request] = requests(instance, merge)
    result = run(instance, request)
    assert not result.success
    assert "approvals" in why_it_failed(instance, result)
    assert figures(result)["status"] == "pending"
    merging.ok("PATCH", f"/branches/{merging.branches['main']}", json={"require_review": False})
    gate = merging.jobs(merge)["submit_gate"]
    merging.ok("PATCH", f"/merge-jobs/{gate['id']}", json={"status": "queued"})
    [again] = requests(instance, merge)
    assert run(instance, again).success
    assert merging.merge(merge)["status"] == "merged"


def test_a_job_that_another_executor_has_is_left_to_it(api, instance):
    merging, merge = begin_with_texts(api)
    [request] = requests(instance, merge)
    assert merging.claim(merge)
    result = run(instance, request)
    assert result.success
    assert result.asset_materializations_for_node("execute_merge_job") == []
    assert merging.jobs(merge)["auto_integrate"]["executor"] == "test"


def test_a_run_that_died_before_it_claimed_does_not_block_the_job(api, instance):
    merging, merge = begin_with_texts(api)
    [first] = requests(instance, merge)
    assert [one.run_key for one in requests(instance, merge)] == [first.run_key]
    with psycopg.connect(api.owner_url) as owner:
        owner.execute(
            "UPDATE merge_jobs SET available_at = available_at - %s WHERE merge_id = %s",
            (timedelta(minutes=3), merge["id"]),
        )
    [later] = requests(instance, merge)
    assert later.run_key != first.run_key
    assert run(instance, later).success
    merging.http.close()


def started(instance, request):
    """A run whose process is nowhere, as Dagster sees it."""
    job = defs.resolve_job_def("merge_execution")
    dead = instance.create_run_for_job(job, run_config=request.run_config, tags=request.tags)
    event = DagsterEvent(DagsterEventType.RUN_START.value, job_name=job.name)
    instance.report_dagster_event(event, run_id=dead.run_id)
    return dead.run_id


def status(instance, run_id):
    return instance.get_run_by_id(run_id).status


def test_a_run_that_died_does_not_keep_its_branch(api, instance, monkeypatch):
    merging, merge = begin_with_texts(api)
    [request] = requests(instance, merge)
    run_id = started(instance, request)
    tick(instance)
    assert status(instance, run_id) is dg.DagsterRunStatus.STARTED  # it may be about to claim
    monkeypatch.setattr(merge_runs, "DEAD_RUN_SECONDS", 0)
    job = merging.claim(merge, executor=f"dagster run {run_id}")
    tick(instance)
    assert status(instance, run_id) is dg.DagsterRunStatus.STARTED  # it has a lease
    with psycopg.connect(api.owner_url) as owner:
        owner.execute("UPDATE merge_jobs SET leased_until = now() WHERE id = %s", (job["id"],))
    [again] = requests(instance, merge)
    assert status(instance, run_id) is dg.DagsterRunStatus.FAILURE
    assert again.run_key != request.run_key
    assert run(instance, again).success
    assert merging.merge(merge)["status"] == "merged"


@pytest.mark.parametrize(
    ("variable", "value", "why"),
    [
        ("DEPOT_URL", "http://127.0.0.1:1", "cannot be reached"),
        ("DEPOT_TOKEN", "wrong", "token"),
        ("DEPOT_TOKEN", None, "DEPOT_TOKEN: not set"),
    ],
)
def test_a_depot_that_cannot_be_asked_is_said_and_soon(instance, monkeypatch, variable, value, why):
    monkeypatch.delenv(variable) if value is None else monkeypatch.setenv(variable, value)
    begun = time.monotonic()
    skipped = tick(instance)
    assert isinstance(skipped, dg.SkipReason)
    assert why in str(skipped.skip_message)
    assert time.monotonic() - begun < 5


def test_a_depot_that_is_gone_fails_the_run(api, instance, monkeypatch):
    _, merge = begin_with_texts(api)
    [request] = requests(instance, merge)
    monkeypatch.setenv("DEPOT_URL", "http://127.0.0.1:1")
    result = run(instance, request)
    assert not result.success
    assert "cannot be reached" in why_it_failed(instance, result)


def test_a_merge_that_has_a_run_gets_no_second_one(api, instance):
    merging, merge = begin_with_texts(api)
    [request] = requests(instance, merge)
    run_id = started(instance, request)
    with psycopg.connect(api.owner_url) as owner:
        owner.execute(
            "UPDATE merge_jobs SET available_at = available_at - %s WHERE merge_id = %s",
            (timedelta(minutes=3), merge["id"]),
        )
    assert requests(instance, merge) == []
    instance.report_run_failed(instance.get_run_by_id(run_id))
    assert len(requests(instance, merge)) == 1
    merging.http.close()


def test_runs_into_one_branch_wait_for_each_other(api, instance):
    _, merge = begin_with_texts(api)
    [request] = requests(instance, merge)
    settings = yaml.safe_load((REPOSITORY / "dagster_home/dagster.yaml").read_text())
    first, second = (instance.get_run_by_id(started(instance, request)) for _ in range(2))
    elsewhere = second.with_tags({**second.tags, TARGET_BRANCH: "another"})
    counter = TagConcurrencyLimitsCounter(settings["concurrency"]["runs"]["tag_concurrency_limits"], [first])
    assert counter.is_blocked(second)
    assert not counter.is_blocked(elsewhere)
