"""`depot-ops run`: launch a Dagster job from a shell, a cron line or CI."""

from typing import Annotated

import typer

from depot_ops.console import failed
from depot_ops.evidence import Status
from depot_ops.launch import LaunchError, RunOutcome, launch, wait

app = typer.Typer()


@app.command()
def run(
    job: Annotated[str, typer.Argument(help="The job, for example nightly_maintenance.")],
    dagster_url: Annotated[
        str, typer.Option(envvar="DAGSTER_URL", help="The Dagster webserver.")
    ] = "http://127.0.0.1:3000",
    until_done: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it has ended.")] = True,
    timeout_seconds: Annotated[float, typer.Option(help="How long to wait.")] = 14400,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")] = False,
) -> None:
    """Launch a job, and wait for its end: 0 it succeeded, 1 it failed, 3 not known (no answer, or still running).

    With --no-wait, 0 says that it is queued.
    """
    try:
        outcome = launch(dagster_url, job)
        if not as_json:
            typer.echo(f"{job} is queued: {outcome.url}", err=True)
        if until_done:
            outcome = wait(dagster_url, outcome, timeout_seconds)
    except LaunchError as error:
        raise failed(error, Status.UNKNOWN) from None
    typer.echo(outcome.model_dump_json(indent=2) if as_json else _text(outcome))
    raise typer.Exit(outcome.status.exit_code if until_done else 0)


def _text(outcome: RunOutcome) -> str:
    checks = [f"{'ok ' if c.passed else 'BAD'} {c.check}: {c.detail}" for c in outcome.checks]
    return "\n".join([f"{outcome.job}: {outcome.dagster_status}", *checks, *outcome.errors])
