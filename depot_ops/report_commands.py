"""`depot-ops report`: what the night asks, for cron, log shippers and dashboards."""

from pathlib import Path
from typing import Annotated

import typer

from depot_ops.console import failed
from depot_ops.evidence import Status
from depot_ops.reports.nightly import MAX_BACKUP_AGE_HOURS, ReportScope, make_report, write_whole

app = typer.Typer()

BackupDir = Annotated[Path | None, typer.Option(envvar="BACKUP_DIR", help="Where backups lie.")]
ArchiveDir = Annotated[Path | None, typer.Option(envvar="WAL_ARCHIVE_DIR", help="The archive of the log.")]
PrimaryUrl = Annotated[
    str | None, typer.Option(envvar="DEPOT_REPLICATION_URL", help="The primary: by its progress the log is judged.")
]
ReplicaUrl = Annotated[str | None, typer.Option(envvar="DEPOT_REPLICA_URL", help="The standby.")]


@app.command()
def report(
    backup_dir: BackupDir = None,
    archive_dir: ArchiveDir = None,
    primary_url: PrimaryUrl = None,
    replica_url: ReplicaUrl = None,
    health_url: Annotated[str | None, typer.Option(envvar="DEPOT_URL", help="The depot's address.")] = None,
    max_backup_age_hours: Annotated[float, typer.Option(min=0, help="Of the newest dump.")] = MAX_BACKUP_AGE_HOURS,
    output: Annotated[Path | None, typer.Option(help="Where the whole report goes, as JSON.")] = None,
) -> None:
    """Prove the newest dump, probe the log, ask service and standby: 0 healthy, 1 unhealthy, 3 unknown.

    Prints one JSON line for each check; --output has the report of docs/report-schema.json.
    """
    made = make_report(
        ReportScope(
            backup_dir=backup_dir,
            archive_dir=archive_dir,
            primary_url=primary_url,
            replica_url=replica_url,
            health_url=health_url.removesuffix("/").removesuffix("/health") if health_url else None,
            max_backup_age_hours=max_backup_age_hours,
        )
    )
    for finding in made.findings:
        typer.echo(finding.model_dump_json())
    if output:
        try:
            write_whole(output, made.model_dump_json(indent=2) + "\n")
        except OSError as error:
            raise failed(error, Status.UNHEALTHY) from None
    raise typer.Exit(made.status.exit_code)
