"""`depot-ops report` and `depot-ops dr-checklist`: evidence for log shippers, and for people before they act."""

from pathlib import Path
from typing import Annotated

import typer

from depot_ops.console import failed
from depot_ops.durable import write_whole
from depot_ops.evidence import Status
from depot_ops.reports.checklist import DIRECTORY, ChecklistScope, as_markdown, walk, write_documents
from depot_ops.reports.nightly import MAX_BACKUP_AGE_HOURS, ReportScope, make_report
from depot_ops.settings import OffsiteSettings, SettingsError, load

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

    Where WAL_STREAM_DIR and BACKUP_COPY_URL are set, the stream and the second place are looked at, too. Prints one
    JSON line for each check; --output has the report of docs/report-schema.json.
    """
    try:
        offsite = load(OffsiteSettings)
    except SettingsError as error:
        raise failed(error, Status.UNKNOWN) from None
    made = make_report(
        ReportScope(
            backup_dir=backup_dir,
            archive_dir=archive_dir,
            primary_url=primary_url,
            replica_url=replica_url,
            health_url=health_url.removesuffix("/").removesuffix("/health") if health_url else None,
            stream_dir=offsite.wal_stream_dir,
            copy_url=offsite.backup_copy_url,
            max_backup_age_hours=max_backup_age_hours,
            max_copy_age_hours=offsite.backup_copy_max_age_hours,
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


@app.command("dr-checklist")
def dr_checklist(
    signed_by: Annotated[str, typer.Option(help="Who signs: a person's name.")],
    backup_dir: Annotated[Path, typer.Option(envvar="BACKUP_DIR", help="Where backups lie.")],
    archive_dir: ArchiveDir = None,
    primary_url: PrimaryUrl = None,
    replica_url: ReplicaUrl = None,
    dump_url: Annotated[
        str | None, typer.Option(envvar="DEPOT_DUMP_URL", help="What the safety backup is taken from.")
    ] = None,
    failover_document: Annotated[
        Path | None, typer.Option(help="The page on this failover: why, who, when. Left out: the last in failovers/.")
    ] = None,
    output_dir: Annotated[Path | None, typer.Option(help="Left out: checklists/ in the backup directory.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The document as JSON instead of Markdown.")] = False,
) -> None:
    """Walk the disaster-recovery checklist, and leave a document: 0 signed off, 1 a line fails, 3 one is unknown.

    Takes a logical backup for safety. Example: depot-ops dr-checklist --signed-by "Ada L." --failover-document f.md
    """
    if not signed_by.strip():
        raise typer.BadParameter("a name is needed: somebody answers for this", param_hint="--signed-by")
    checklist = walk(
        ChecklistScope(
            backup_dir=backup_dir,
            archive_dir=archive_dir,
            dump_url=dump_url,
            primary_url=primary_url,
            replica_url=replica_url,
            failover_document=failover_document,
        ),
        signed_by.strip(),
    )
    try:
        document, page = write_documents(checklist, output_dir or backup_dir / DIRECTORY)
    except OSError as error:
        raise failed(error, Status.UNHEALTHY) from None
    typer.echo(checklist.model_dump_json(indent=2) if as_json else as_markdown(checklist))
    typer.echo(f"{document}\n{page}", err=True)
    raise typer.Exit(checklist.status.exit_code)
