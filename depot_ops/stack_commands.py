"""`depot-ops up` and `migrate`: the embedded stack, and the schema."""

import os
import signal
import subprocess
import sys
import threading
from enum import IntEnum
from pathlib import Path
from typing import Annotated

import typer

from depot_ops.local.stack import StackError, StackOptions
from depot_ops.local.stack import run as run_stack

app = typer.Typer()


class ExitCode(IntEnum):
    OK = 0
    FAILED = 1
    USAGE = 2


@app.command()
def up(
    data_dir: Annotated[Path, typer.Option(help="Where everything is kept.")] = Path(".depot"),
    api_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the depot's REST API.")] = 8000,
    dagster_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the Dagster UI.")] = 3000,
    api_workers: Annotated[int, typer.Option(min=1, help="Worker processes of the API; about one a core.")] = 2,
    standby: Annotated[
        bool, typer.Option("--standby", envvar="STANDBY", help="Run a standby beside the primary; from then on always.")
    ] = False,
    metrics_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Serve the metrics of operations here; left out, nowhere.")
    ] = None,
    no_dagster: Annotated[bool, typer.Option("--no-dagster", help="Only the database and the API.")] = False,
) -> None:
    """Start the whole stack in the foreground. Example: depot-ops up --data-dir /srv/depot"""
    stop = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.set())
    options = StackOptions(
        data_dir.absolute(), api_port, dagster_port, not no_dagster, api_workers, standby, metrics_port
    )
    try:
        run_stack(options, typer.echo, stop)
    except StackError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(ExitCode.FAILED) from None


@app.command()
def migrate(
    database_url: Annotated[
        str | None, typer.Option(envvar="DATABASE_OWNER_URL", help="PostgreSQL URL of the role depot_owner.")
    ] = None,
) -> None:
    """Bring the depot's schema up to date. Example: DATABASE_OWNER_URL=postgresql://… depot-ops migrate"""
    if not database_url:
        typer.echo("No database is named. Set DATABASE_OWNER_URL to the URL of the role depot_owner.", err=True)
        raise typer.Exit(ExitCode.USAGE)
    command = [sys.executable, "-m", "depot_api.database", "upgrade"]
    done = subprocess.run(command, env={**os.environ, "DATABASE_OWNER_URL": database_url}, check=False)
    raise typer.Exit(done.returncode)
