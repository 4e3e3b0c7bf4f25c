"""`depot-ops merges`: carry merge jobs out without Dagster."""

import signal
from contextlib import closing
from datetime import UTC, datetime
from threading import Event
from typing import Annotated
from uuid import UUID

import typer
from pydantic import TypeAdapter

from depot_api.client import DepotClient, DepotError, ProblemError
from depot_api.client.models import ClaimableJob
from depot_ops.console import failed
from depot_ops.evidence import Status
from depot_ops.merges.depot import connect
from depot_ops.merges.executor import LEASE_SECONDS, Executor, JobReport, Outcome, executor_name
from depot_ops.merges.worker import FIRST_SERVER_ERROR, keep_working
from depot_ops.settings import SettingsError

app = typer.Typer(help="Carry out the depot's merge jobs.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of text.")]
COLOURS = {Outcome.DONE: "green", Outcome.FAILED: "red", Outcome.GIVEN_BACK: "yellow", Outcome.LOST: "yellow"}


@app.command()
def work(
    once: Annotated[bool, typer.Option("--once", help="Stop when there is nothing to do now.")] = False,
    merge: Annotated[UUID | None, typer.Option(help="Only the jobs of this merge.")] = None,
    lease_seconds: Annotated[
        int, typer.Option(min=1, max=3600, help="After how long without a word from this worker others take over.")
    ] = LEASE_SECONDS,
    as_json: AsJson = False,
) -> None:
    """Claim merge jobs and carry them out, until it is stopped: SIGTERM and Ctrl-C let it finish the step under way.

    As many workers as you like can run, anywhere. With --json one object a line, for each job. Exit codes: 0 all was
    done; 1 with --once a job failed, or the depot refused; 3 the depot does not answer.

    Example: DEPOT_URL=http://127.0.0.1:8000 DEPOT_TOKEN=… depot-ops merges work
    """
    stop = Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.set())
    outcomes = set()
    with closing(_depot()) as depot:
        executor = Executor(depot, executor_name(), lease_seconds=lease_seconds, stop=stop)
        reports = (
            executor.work(merge_id=merge)
            if once
            else keep_working(executor, stop, lambda trouble: typer.echo(trouble, err=True), merge_id=merge)
        )
        try:
            for report in reports:
                outcomes.add(report.outcome)
                typer.echo(report.model_dump_json() if as_json else _line(report))
        except DepotError as error:
            raise _refused(error) from None
    if once and Outcome.FAILED in outcomes:
        raise typer.Exit(Status.UNHEALTHY.exit_code)


@app.command("list")
def list_jobs(as_json: AsJson = False) -> None:
    """List the merge jobs that a worker could claim now, oldest first. Example: depot-ops merges list --json"""
    with closing(_depot()) as depot:
        try:
            jobs = depot.claimable_merge_jobs()
        except DepotError as error:
            raise _refused(error) from None
    if as_json:
        typer.echo(TypeAdapter(list[ClaimableJob]).dump_json(jobs, indent=2))
        return
    now = datetime.now(UTC)
    for job in jobs:
        waited_seconds = max(0, round((now - job.available_at).total_seconds()))
        typer.echo(f"{job.id}  {job.job_type:<16}  merge {job.merge_id}  attempt {job.attempt + 1}  {waited_seconds} s")
    if not jobs:
        typer.echo("No merge job waits for a worker.")


def _depot() -> DepotClient:
    try:
        return connect()
    except (SettingsError, DepotError) as error:
        raise failed(error, Status.UNKNOWN) from None


def _refused(error: DepotError) -> typer.Exit:
    refused = isinstance(error, ProblemError) and error.status < FIRST_SERVER_ERROR
    return failed(error, Status.UNHEALTHY if refused else Status.UNKNOWN)


def _line(report: JobReport) -> str:
    outcome = typer.style(f"{report.outcome:<10}", fg=COLOURS[report.outcome])
    detail = f": {report.detail}" if report.detail else ""
    return f"{outcome} {report.job_type} of merge {report.merge_id} in {report.duration_seconds:.2f} s{detail}"
