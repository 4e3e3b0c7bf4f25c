"""Merge jobs as Dagster runs: a sensor asks the depot what there is to do, and a run does it."""

import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from uuid import UUID

import dagster as dg
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

from depot_api.client import DepotClient, DepotError
from depot_api.client.http import Patience
from depot_api.client.models import BranchMerge, ClaimableJob
from depot_ops.assets.merge import branch_merge
from depot_ops.jobs import HALF_AN_HOUR, MAX_RUNTIME, OWNER
from depot_ops.merges.depot import connect
from depot_ops.merges.executor import Executor, JobReport, Outcome
from depot_ops.settings import SettingsError

# A tick that waited longer would hold up the daemon; the next one asks again.
SENSOR_PATIENCE = Patience(connect_seconds=2, read_seconds=5, back_off_seconds=())
INTERVAL_SECONDS = 1  # the daemon looks every five seconds; with five or more it would be every ten
# A key is used up by its run, even one that died before it claimed the job: after this long there is a new one.
RUN_KEY_SECONDS = 120
# A run takes its first job at once and has one until its end: one that has none after this long is dead.
DEAD_RUN_SECONDS = 60
PROJECT, MERGE, JOB = "depot/project", "depot/merge", "depot/merge_job"
TARGET_BRANCH = "depot/target_branch"  # dagster.yaml lets one run at a time have each of its values


class MergeJobConfig(dg.Config):
    """Which job to begin with, and its merge, whose further jobs the same run does."""

    merge_id: str
    job_id: str


@dg.op(out={}, tags={"dagster/kind/fastapi": ""})
def execute_merge_job(context: dg.OpExecutionContext, config: MergeJobConfig) -> Iterator[dg.AssetMaterialization]:
    """Claim the job and carry it out, then what else the merge needs; report how it stands."""
    merge_id = UUID(config.merge_id)
    begun = time.monotonic()
    with closing(connect(origin=f"run-{context.run_id}")) as depot:
        executor = Executor(depot, _executor_name(context.run_id))
        reports = list(_told(context, executor.work(job_id=UUID(config.job_id))))
        if not reports:
            context.log.info("Another executor has the job, or it is done: nothing to do here.")
            return
        reports += _told(context, executor.work(merge_id=merge_id))
        merge = depot.merge(merge_id)
    # Yielded, not logged: what is only logged is lost when the op fails.
    yield _materialization(merge, time.monotonic() - begun)
    if reasons := [one.detail for one in reports if one.outcome in (Outcome.FAILED, Outcome.GIVEN_BACK)]:
        # The depot itself decides whether and when a job is tried again.
        raise dg.Failure("; ".join(reasons), allow_retries=False)


def _executor_name(run_id: str) -> str:
    return f"dagster run {run_id}"


def _told(context: dg.OpExecutionContext, reports: Iterator[JobReport]) -> Iterator[JobReport]:
    for report in reports:
        context.log.info(report.model_dump_json())
        yield report


def _materialization(merge: BranchMerge, seconds: float) -> dg.AssetMaterialization:
    figures: dict[str, int | float | str] = {
        "status": merge.status.value,
        "paths": merge.paths_count,
        "conflicts": merge.conflicts_count,
        "unresolved_conflicts": merge.unresolved_count,
        "size_bytes": merge.size_bytes,
        "duration_seconds": round(seconds, 3),
        "merge": str(merge.id),
        "project": str(merge.project_id),
        "target_branch": str(merge.target_branch_id),
    }
    if merge.landed_no is not None:
        figures["landed_as_changelist"] = merge.landed_no
    if merge.completed_at is not None:
        figures["duration_since_begun_seconds"] = (merge.completed_at - merge.created_at).total_seconds()
    return dg.AssetMaterialization(branch_merge.key, description=merge.description, metadata=figures)


@dg.job(
    executor_def=dg.in_process_executor,
    tags=OWNER | {MAX_RUNTIME: HALF_AN_HOUR, "dagster/kind/fastapi": ""},
    description=(
        "Carries out one merge of branches as far as it goes without people. Green: it is merged, or waits for choices."
        " Red: a job failed, and the run's error says why. A run that dies is no harm: the depot gives its job to"
        " another when the lease ends, and nothing lands twice."
    ),
)
def merge_execution() -> None:
    execute_merge_job()


@dg.sensor(
    job=merge_execution,
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Asks the depot at DEPOT_URL which merge jobs wait, and launches a run for each.",
)
def merge_jobs(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    try:
        with closing(connect(SENSOR_PATIENCE)) as depot:
            jobs = depot.claimable_merge_jobs()
            _give_up_dead_runs(context.instance, depot)
    except (SettingsError, DepotError) as error:
        return dg.SkipReason(f"The depot cannot be asked for merge jobs: {error}")
    if not jobs:
        return dg.SkipReason("No merge job waits.")
    now, taken = datetime.now(UTC), _merges_at_work(context.instance)
    waiting = [job for job in jobs if str(job.merge_id) not in taken]
    if not waiting:
        return dg.SkipReason("Every merge job that waits has a run that has not ended.")
    return dg.SensorResult(run_requests=[_run_request(job, now) for job in waiting])


def _merges_at_work(instance: dg.DagsterInstance) -> set[str]:
    """Those that a run has, or waits to have: it carries all of their jobs, and another one would find nothing."""
    unfinished = dg.RunsFilter(job_name=merge_execution.name, statuses=NOT_FINISHED_STATUSES)
    return {record.dagster_run.tags.get(MERGE, "") for record in instance.get_run_records(unfinished)}


def _give_up_dead_runs(instance: dg.DagsterInstance, depot: DepotClient) -> None:
    """Dagster's default launcher does not notice that a run's process died, and the target branch would stay taken."""
    at_work = dg.RunsFilter(job_name=merge_execution.name, statuses=[dg.DagsterRunStatus.STARTED])
    for record in instance.get_run_records(at_work):
        run, started = record.dagster_run, record.start_time
        if started is None or time.time() - started < DEAD_RUN_SECONDS or MERGE not in run.tags:
            continue
        if not _has_a_job(depot, run):
            instance.report_run_failed(run, "The depot has not heard of this run since its lease ended: it died.")


def _has_a_job(depot: DepotClient, run: dg.DagsterRun) -> bool:
    now = datetime.now(UTC)
    return any(
        job.executor == _executor_name(run.run_id) and job.leased_until is not None and job.leased_until > now
        for job in depot.merge_jobs(UUID(run.tags[MERGE]))
    )


def _run_request(job: ClaimableJob, now: datetime) -> dg.RunRequest:
    waited_seconds = (now - job.available_at).total_seconds()
    config = MergeJobConfig(merge_id=str(job.merge_id), job_id=str(job.id))
    return dg.RunRequest(
        # Each claim raises the fencing number for good; attempts begin anew when the job is queued again.
        run_key=f"{job.id}:{job.fencing_number}:{int(waited_seconds // RUN_KEY_SECONDS)}",
        run_config=dg.RunConfig(ops={execute_merge_job.name: config}),
        tags={
            PROJECT: str(job.project_id),
            MERGE: str(job.merge_id),
            JOB: str(job.id),
            TARGET_BRANCH: str(job.target_branch_id),
        },
    )
