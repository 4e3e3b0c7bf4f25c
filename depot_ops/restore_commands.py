"""`depot-ops restore`: recover a cluster into a new directory, to a moment that is named."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from depot_ops.console import failed
from depot_ops.evidence import Status
from depot_ops.postgres.accounts import AccountError, runnable_binaries, server_account
from depot_ops.postgres.binaries import BinariesNotFound, find_binaries
from depot_ops.postgres.recovery import restore
from depot_ops.postgres.recovery_plan import RestoreError, Target, TargetKind
from depot_ops.postgres.wal.names import parse_lsn

app = typer.Typer()


@app.command("restore")
def restore_cluster(
    to: Annotated[Path, typer.Option(help="The new data directory.")],
    backup_dir: Annotated[Path, typer.Option(envvar="BACKUP_DIR", help="Where the base backups lie.")],
    archive: Annotated[Path, typer.Option(envvar="WAL_ARCHIVE_DIR", help="The archive of the log.")],
    target_time: Annotated[
        str | None, typer.Option(help="With its offset: 2026-11-23T01:00:00+00:00. What was committed by then.")
    ] = None,
    target_lsn: Annotated[str | None, typer.Option(help="What was written before this position of the log.")] = None,
    target_name: Annotated[str | None, typer.Option(help="A restore point.")] = None,
    latest: Annotated[bool, typer.Option("--latest", help="As far as the archive reaches.")] = False,
    timeline: Annotated[int | None, typer.Option(min=1, help="Left out: the newest that leads on.")] = None,
    base: Annotated[str | None, typer.Option(help="A base backup. Left out: the newest before the target.")] = None,
    system_identifier: Annotated[int | None, typer.Option(help="Where the archive has several clusters.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Check every page of the result.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")] = False,
) -> None:
    """Recover the cluster into a new directory, with archiving off: 0 restored, 1 refused or failed.

    Example: depot-ops restore --to /srv/restored --target-time 2026-11-23T01:00:00+00:00
    """
    target = _target(target_time, target_lsn, target_name, latest)
    try:
        account = server_account()
        binaries = runnable_binaries(find_binaries(), account)
        report = restore(
            to,
            backup_dir,
            archive,
            binaries,
            account,
            target,
            system_identifier=system_identifier,
            timeline=timeline,
            base=base,
            verify=verify,
        )
    except (RestoreError, AccountError, BinariesNotFound) as error:
        raise failed(error, Status.UNHEALTHY) from None
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
        return
    commit = f"last commit {report.last_commit_at.isoformat()}" if report.last_commit_at else "no commit after the base"
    typer.echo(f"{report.directory}: from {' + '.join(report.backups)} and {report.segments} segments")
    typer.echo(f"ended at {report.ended_lsn} of timeline {report.recovered_timeline}, {commit}")
    typer.echo(f"fetch {report.fetch_seconds} s, replay {report.replay_seconds} s, verify {report.verify_seconds} s")
    typer.echo("its archive_mode is off: ALTER SYSTEM RESET archive_mode when it becomes the primary")


def _target(moment: str | None, position: str | None, name: str | None, latest: bool) -> Target:
    if sum(option is not None for option in (moment, position, name)) + latest != 1:
        raise typer.BadParameter("name one of --target-time, --target-lsn, --target-name and --latest")
    try:
        if moment is not None:
            return Target.at_time(_aware(moment))
        if position is not None:
            parse_lsn(position)
            return Target(TargetKind.LSN, position)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return Target() if name is None else Target(TargetKind.NAME, name)


def _aware(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text} has no offset, and whose clock is meant must not be guessed: append +00:00 for UTC")
    return moment
