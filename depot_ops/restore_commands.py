"""`depot-ops restore` and `restore-dump`: a cluster recovered to a moment that is named, a dump as a new database."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, TypedDict
from uuid import UUID

import typer

from depot_ops.console import failed, progress
from depot_ops.copies.holdings import fetch_dump
from depot_ops.evidence import Status
from depot_ops.places import Place, PlaceError, open_place
from depot_ops.postgres.accounts import AccountError, runnable_binaries, server_account
from depot_ops.postgres.binaries import BinariesNotFound, find_binaries
from depot_ops.postgres.client_tools import ToolFailed
from depot_ops.postgres.dump_restore import DumpRestoreError, DumpUnusable, restore_dump
from depot_ops.postgres.in_place import InPlaceReport, restore_in_place
from depot_ops.postgres.recovery import RestoreReport, restore
from depot_ops.postgres.recovery_plan import RestoreError, RestoreRefused, SourceIncomplete, Target, TargetKind
from depot_ops.postgres.wal.archive import ArchiveError
from depot_ops.postgres.wal.names import parse_lsn
from depot_ops.settings import CopyPlaceSettings, SecondPlaceSettings, SettingsError, load

app = typer.Typer()

FromCopy = Annotated[bool, typer.Option("--from-copy", help="From BACKUP_COPY_URL, not from BACKUP_DIR and archive.")]
FAILURES = (
    *(RestoreError, ArchiveError, ToolFailed, AccountError),
    *(BinariesNotFound, SettingsError, PlaceError, OSError),
)


class _Options(TypedDict):
    copy: Place | None
    system_identifier: int | None
    timeline: int | None
    base: str | None
    verify: bool
    stream: Path | None
    spool: Path | None
    say: Callable[[str], None]


@app.command("restore")
def restore_cluster(
    backup_dir: Annotated[Path, typer.Option(envvar="BACKUP_DIR", help="Where the base backups lie.")],
    archive: Annotated[Path, typer.Option(envvar="WAL_ARCHIVE_DIR", help="The archive of the log.")],
    from_copy: FromCopy = False,
    to: Annotated[Path | None, typer.Option(help="The new data directory, with archiving off.")] = None,
    in_place: Annotated[Path | None, typer.Option(help="Instead: the data directory that is to be replaced.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="In place: stop its server, keep what is there aside.")
    ] = False,
    target_time: Annotated[
        str | None, typer.Option(help="With its offset: 2026-11-23T01:00:00+00:00. What was committed by then.")
    ] = None,
    target_lsn: Annotated[str | None, typer.Option(help="What was written before this position of the log.")] = None,
    target_name: Annotated[str | None, typer.Option(help="A restore point.")] = None,
    latest: Annotated[bool, typer.Option("--latest", help="As far as the archive reaches.")] = False,
    timeline: Annotated[int | None, typer.Option(min=1, help="Left out: the newest that leads on.")] = None,
    base: Annotated[str | None, typer.Option(help="A base backup. Left out: the newest before the target.")] = None,
    system_identifier: Annotated[int | None, typer.Option(help="Where the archive has several clusters.")] = None,
    stream: Annotated[
        Path | None, typer.Option(envvar="WAL_STREAM_DIR", help="Where `wal receive` wrote: what it has beyond.")
    ] = None,
    spool: Annotated[
        Path | None, typer.Option(envvar="WAL_SPOOL_DIR", help="Where finished log waits to be collected: used too.")
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Check every page of the result.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")] = False,
) -> None:
    """Recover the cluster into a new directory, or in the place of a lost one: 0 restored, 1 refused or failed.

    Example: depot-ops restore --to /srv/restored --target-time 2026-11-23T01:00:00+00:00
    """
    target = _target(target_time, target_lsn, target_name, latest)
    try:
        account = server_account()
        binaries = runnable_binaries(find_binaries(), account)
        from_what = (backup_dir, archive, binaries, account, target)
        options = _Options(
            copy=copy_place(from_copy),
            system_identifier=system_identifier,
            timeline=timeline,
            base=base,
            verify=verify,
            stream=stream,
            spool=spool,
            say=progress,
        )
        if to is not None and in_place is None:
            report = restore(to, *from_what, **options)
        elif in_place is not None and to is None:
            report = restore_in_place(in_place, *from_what, force=force, **options)
        else:
            raise typer.BadParameter("name one of --to and --in-place")
    except SourceIncomplete as error:
        raise failed(RestoreRefused(str(error) + hint(from_copy)), Status.UNHEALTHY) from None
    except FAILURES as error:
        raise failed(error, Status.UNHEALTHY) from None
    _tell(report, as_json)


@app.command("restore-dump")
def restore_logical(
    dump: Annotated[Path, typer.Argument(help="A logical backup, with its record beside it; of the copy its name.")],
    database: Annotated[str, typer.Option(help="The new database.")],
    url: Annotated[str, typer.Option(envvar="DEPOT_SUPERUSER_URL", help="A superuser's address of the server.")],
    from_copy: FromCopy = False,
    project: Annotated[UUID | None, typer.Option(help="Only this project's rows.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Tables at once.")] = 2,
    with_roles: Annotated[
        bool, typer.Option("--with-roles", help="First make the roles of its cluster that the server lacks.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")] = False,
) -> None:
    """Restore a dump into a new database, counted against its record: 0 restored, 1 refused or failed.

    Example: depot-ops restore-dump depot-20261123T010000Z.dump --database depot_yesterday
    """
    if not dump.name:
        raise typer.BadParameter("it is empty: `depot-ops backup list` has the names", param_hint="dump")
    try:
        with _dump(dump, copy_place(from_copy)) as path:
            report = restore_dump(
                path, url, database, find_binaries(), project_id=project, jobs=jobs, with_roles=with_roles, say=progress
            )
    except DumpUnusable as error:
        raise failed(DumpRestoreError(str(error) + hint(from_copy)), Status.UNHEALTHY) from None
    except (DumpRestoreError, BinariesNotFound, SettingsError, PlaceError, OSError) as error:
        raise failed(error, Status.UNHEALTHY) from None
    if report.roles_created:
        typer.secho(f"roles made, set passwords where they have none: {', '.join(report.roles_created)}", err=True)
    rows = sum(report.row_counts.values())
    told = f"{database}: {rows:,} rows in {len(report.row_counts)} tables, {report.duration_seconds} s"
    typer.echo(report.model_dump_json(indent=2) if as_json else told)


def _tell(report: RestoreReport, as_json: bool) -> None:
    for problem in report.left_out:
        typer.secho(problem, fg="yellow", err=True)
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
        return
    commit = f"last commit {report.last_commit_at.isoformat()}" if report.last_commit_at else "no commit after the base"
    spooled = f", {report.spooled_segments} of them from the spool" if report.spooled_segments else ""
    typer.echo(f"{report.directory}: from {' + '.join(report.backups)} and {report.segments} segments{spooled}")
    if report.streamed_until:
        typer.echo(f"and the stream behind them, to {report.streamed_until}")
    typer.echo(f"ended at {report.ended_lsn} of timeline {report.recovered_timeline}, {commit}")
    typer.echo(f"fetch {report.fetch_seconds} s, replay {report.replay_seconds} s, verify {report.verify_seconds} s")
    if not isinstance(report, InPlaceReport):
        typer.echo("its archive_mode is off: ALTER SYSTEM RESET archive_mode when it becomes the primary")
    elif report.set_aside:
        typer.echo(f"what was there lies in {report.set_aside}: take a base backup, then remove it")


def copy_place(from_copy: bool) -> Place | None:
    """Raises SettingsError, PlaceError."""
    return open_place(load(CopyPlaceSettings).backup_copy_url) if from_copy else None


def hint(from_copy: bool) -> str:
    """What to add where something is missing here, which another place may have."""
    url = None if from_copy else load(SecondPlaceSettings).backup_copy_url
    return f". The copy at {url} may have it: --from-copy" if url else ""


@contextmanager
def _dump(dump: Path, copy: Place | None) -> Iterator[Path]:
    """The dump where it lies, or fetched into a private directory that goes with the block."""
    if copy is None:
        yield dump
        return
    with TemporaryDirectory(prefix="depot-copy-") as home:
        yield fetch_dump(copy, dump.name, Path(home))


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
