"""`depot-ops disaster-restore`: the worst day in one command."""

from pathlib import Path
from typing import Annotated

import psycopg
import typer

from depot_ops.blobs.inventory import CopyUnreachable
from depot_ops.blobs.remote import copies_with
from depot_ops.blobs.restore import BlobRestoreError
from depot_ops.console import failed, reported
from depot_ops.disaster import DisasterReport, Left, Rebuild, rebuild_depot
from depot_ops.evidence import Status
from depot_ops.places import PlaceError
from depot_ops.postgres.accounts import AccountError, runnable_binaries, server_account
from depot_ops.postgres.base_record import BaseRecordUnusable
from depot_ops.postgres.binaries import BinariesNotFound, find_binaries
from depot_ops.postgres.client_tools import ToolFailed
from depot_ops.postgres.recovery_plan import RestoreError, RestoreRefused, SourceIncomplete
from depot_ops.restore_commands import FromCopy, copy_place, hint
from depot_ops.settings import SettingsError

app = typer.Typer()
STOPS = (
    *(RestoreError, BlobRestoreError, CopyUnreachable, BaseRecordUnusable, AccountError, BinariesNotFound),
    *(PlaceError, SettingsError, ToolFailed, psycopg.Error, OSError),
)


@app.command("disaster-restore")
def disaster_restore(
    data: Annotated[Path, typer.Option(help="The data directory of the new primary: not there yet, or empty.")],
    backup_dir: Annotated[Path, typer.Option(envvar="BACKUP_DIR", help="Where the base backups lie.")],
    archive: Annotated[Path, typer.Option(envvar="WAL_ARCHIVE_DIR", help="The archive of the log.")],
    store: Annotated[Path, typer.Option(envvar="ASSET_STORAGE_PATH", help="The root of the store to be filled.")],
    from_copy: FromCopy = False,
    mirror: Annotated[
        Path | None,
        typer.Option(envvar="ASSET_STORAGE_REPLICA_PATH", help="The mirror of the blob store, if left."),
    ] = None,
    spool: Annotated[
        Path | None, typer.Option(envvar="WAL_SPOOL_DIR", help="Where finished log waited for the collector, if left.")
    ] = None,
    stream: Annotated[
        Path | None, typer.Option(envvar="WAL_STREAM_DIR", help="Where `wal receive` wrote, if left.")
    ] = None,
    database: Annotated[str, typer.Option(help="The depot's database in that cluster.")] = "depot",
    system_identifier: Annotated[int | None, typer.Option(help="Where the archive has several clusters.")] = None,
    workers: Annotated[int, typer.Option(envvar="BLOB_WORKERS", min=1, max=64, help="Objects at once.")] = 4,
    as_json: Annotated[bool, typer.Option("--json", help="The evidence as one JSON object.")] = False,
) -> None:
    """Rebuild the depot from backups, log and copies of the store, and prove it: 0 every version can be had, 1 not.

    The bucket is the one that BLOB_COPY_URL names, if any.
    Killed or refused, it is run again and goes on. Example: depot-ops disaster-restore --data /srv/depot/postgres/data
    """
    try:
        account = server_account()
        binaries = runnable_binaries(find_binaries(), account)
        rebuild = Rebuild(data.absolute(), store, database, system_identifier, workers)
        left = Left(backup_dir, archive, copies_with(mirror), spool, stream, copy_place(from_copy))
        report = rebuild_depot(left, rebuild, binaries, account, lambda text: typer.secho(text, err=True))
    except SourceIncomplete as error:
        raise failed(RestoreRefused(str(error) + hint(from_copy)), Status.UNHEALTHY) from None
    except STOPS as error:
        raise failed(error, Status.UNHEALTHY) from None
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
        raise typer.Exit(report.status.exit_code)
    _tell(report)
    raise reported(report.findings, as_json=False)


def _tell(report: DisasterReport) -> None:
    cluster, content = report.cluster, report.content
    commit = f"last commit {cluster.last_commit_at.isoformat()}" if cluster.last_commit_at else "no commit after it"
    log = f"{cluster.segments} segments, {cluster.spooled_segments} of them from the spool"
    typer.echo(f"{cluster.directory}: from {' + '.join(cluster.backups)} and {log}, {commit}")
    typer.echo(
        f"{content.target}: {content.copied_objects:,} objects copied ({content.copied_bytes:,} bytes) and"
        f" {content.documents:,} documents, in {report.duration_seconds} s together"
    )
    for version in content.affected:
        typer.secho(f"lost: {version}", fg="red", err=True)
    if report.status is Status.HEALTHY:
        typer.echo("Start PostgreSQL on it, then the depot; take a base backup at once.")
