"""`depot-ops backup`: the same functions that Dagster calls, for cron, CI and people."""

from pathlib import Path
from typing import Annotated

import typer

from depot_ops.console import failed, reported
from depot_ops.evidence import Finding, Status
from depot_ops.postgres.binaries import BinariesNotFound, find_binaries
from depot_ops.postgres.dump import BackupError, take_logical_backup
from depot_ops.postgres.dump_checks import verify, verify_newest
from depot_ops.postgres.dump_record import find_backups, glance
from depot_ops.settings import BackupSettings, DumpSettings, SettingsError, load

app = typer.Typer(help="Take, prove and list backups.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")]


@app.command()
def logical(as_json: Json = False) -> None:
    """Take a logical backup into BACKUP_DIR, proved before it gets its name: 0 taken, 1 not taken."""
    try:
        settings = load(DumpSettings)
        record = take_logical_backup(settings.depot_dump_url.get_secret_value(), settings.backup_dir, find_binaries())
    except (SettingsError, BinariesNotFound, BackupError) as error:
        raise failed(error, Status.UNHEALTHY) from None
    if as_json:
        typer.echo(record.model_dump_json(indent=2))
        return
    figures = f"{record.size_bytes:,} bytes, {sum(record.row_counts.values()):,} rows, {record.duration_seconds} s"
    typer.echo(f"{settings.backup_dir / record.file}: {figures}, proved")


@app.command("verify")
def verify_backup(
    dump: Annotated[Path | None, typer.Argument(help="A dump. Left out: the newest in BACKUP_DIR.")] = None,
    as_json: Json = False,
) -> None:
    """Prove a backup again from what lies on disk now: 0 healthy, 1 unhealthy, 3 unknown."""
    try:
        findings = verify(dump, find_binaries()) if dump else verify_newest(load(BackupSettings).backup_dir)
    except (SettingsError, BinariesNotFound) as error:
        raise failed(error, Status.UNKNOWN) from None
    raise reported(findings, as_json)


@app.command("list")
def list_backups(as_json: Json = False) -> None:
    """List the backups in BACKUP_DIR, oldest first, without reading them through (that is `verify`).

    0 each has its record and its size, 1 one has not or there is none, 3 unknown.
    """
    try:
        directory = load(BackupSettings).backup_dir
        findings = [glance(dump) for dump in find_backups(directory)]
    except (SettingsError, OSError) as error:
        raise failed(error, Status.UNKNOWN) from None
    none = Finding(check="exists", status=Status.UNHEALTHY, detail=f"there is no backup in {directory}")
    raise reported(findings or [none], as_json)
