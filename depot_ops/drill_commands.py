"""`depot-ops drill`: restore what was backed up, prove it, and show the evidence."""

import signal
from pathlib import Path
from typing import Annotated

import typer

from depot_ops.console import failed, progress, reported
from depot_ops.drills.record import DrillKind, DrillRecord, DrillRecordUnusable, find_drills, load_drill, record_path
from depot_ops.drills.run import run_drill
from depot_ops.drills.site import DrillRunning, configured_site
from depot_ops.evidence import Finding, Status
from depot_ops.places import PlaceError
from depot_ops.postgres.accounts import AccountError
from depot_ops.postgres.binaries import BinariesNotFound
from depot_ops.settings import BackupSettings, DrillSettings, SettingsError, load

app = typer.Typer(help="Restore backups to prove them, and list what drills found.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")]


@app.command()
def run(
    logical: Annotated[bool, typer.Option("--logical", help="The newest dump, not the newest base backup.")] = False,
    from_copy: Annotated[
        bool, typer.Option("--from-copy", help="From BACKUP_COPY_URL, after a pass of copying what is new there.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Restore the newest backup into DRILL_DIR, prove it and remove it again: 0 passed, 1 failed, 3 another drill runs.

    Example: depot-ops drill run --json
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever ends us with it wants no copy left behind
    try:
        settings = load(DrillSettings)
        site = configured_site(settings, progress, from_copy=from_copy)
        record = run_drill(DrillKind.LOGICAL if logical else DrillKind.BASE, site)
    except DrillRunning as error:
        raise failed(error, Status.UNKNOWN) from None
    except (SettingsError, AccountError, BinariesNotFound, PlaceError, OSError) as error:
        raise failed(error, Status.UNHEALTHY) from None
    if as_json:
        typer.echo(record.model_dump_json(indent=2))
        raise typer.Exit(record.result.status.exit_code)
    exit_code = reported([*record.findings, record.summary], as_json=False)
    typer.echo(", ".join(f"{name.removesuffix('_seconds')} {seconds} s" for name, seconds in _seconds(record)))
    typer.echo(str(record_path(settings.backup_dir, record.label).with_suffix(".html")))
    raise exit_code


def _seconds(record: DrillRecord) -> list[tuple[str, int | float | str]]:
    return [(name, value) for name, value in record.figures.items() if name.endswith("_seconds")]


@app.command("list")
def list_drills(as_json: Json = False) -> None:
    """List the drills in BACKUP_DIR, oldest first, and exit by the newest: 0 passed, 1 failed or none, 3 unknown."""
    try:
        directory = load(BackupSettings).backup_dir
        findings = [_summary(path) for path in find_drills(directory)]
    except (SettingsError, OSError) as error:
        raise failed(error, Status.UNKNOWN) from None
    none = Finding(check="exists", status=Status.UNHEALTHY, detail=f"there is no drill in {directory}")
    reported(findings or [none], as_json)
    raise typer.Exit((findings or [none])[-1].status.exit_code)


def _summary(path: Path) -> Finding:
    try:
        return load_drill(path).summary
    except DrillRecordUnusable as error:
        return Finding(check="readable", status=Status.UNKNOWN, detail=str(error), figures={"file": path.stem})
