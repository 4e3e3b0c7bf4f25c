"""How every `depot-ops` command shows what it found, and exits."""

import sys

import typer
from pydantic import BaseModel

from depot_ops.evidence import Finding, Status, worst

COLOURS = {Status.HEALTHY: "green", Status.UNHEALTHY: "red", Status.UNKNOWN: "yellow"}


class Report(BaseModel):
    """What `--json` prints: the answer for everything together, and each finding."""

    status: Status
    findings: list[Finding]


def reported(findings: list[Finding], as_json: bool) -> typer.Exit:
    """Print `findings`, and return the exit that their worst one calls for."""
    report = Report(status=worst(findings), findings=findings)
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
        return typer.Exit(report.status.exit_code)
    for finding in findings:
        status = typer.style(f"{finding.status:<9}", fg=COLOURS[finding.status])
        subject = f"{finding.figures['file']}  " if "file" in finding.figures else ""
        typer.echo(f"{status} {subject}{finding.check}: {finding.detail}")
    return typer.Exit(report.status.exit_code)


def failed(error: Exception, status: Status) -> typer.Exit:
    """Print why nothing could be found out or done, and return the exit for `status`."""
    typer.secho(str(error), fg="red", err=True)
    return typer.Exit(status.exit_code)


def progress(step: str) -> None:
    """Tell whoever watches what begins; a log or a pipe is told the result alone."""
    if sys.stderr.isatty():
        typer.echo(f"{step} …", err=True)
