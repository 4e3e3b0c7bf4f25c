"""`depot-ops backup`: the same functions that Dagster calls, for cron, CI and people."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from pydantic import BaseModel

from depot_ops.console import failed, progress, reported
from depot_ops.copies.copying import CopyError, copy_backups
from depot_ops.copies.holdings import Holdings, list_copy, look
from depot_ops.copies.proofs import remove_damaged, verify_copy
from depot_ops.copies.pruning import prune_copy
from depot_ops.evidence import Finding, Status
from depot_ops.places import Place, PlaceError, open_place
from depot_ops.postgres.base_backup import (
    BaseBackupError,
    check_chain,
    take_base_backup,
    verify_base_backup,
    verify_newest_chains,
)
from depot_ops.postgres.base_record import BaseBackupKind, find_base_backups, load_base_backup
from depot_ops.postgres.binaries import BinariesNotFound, find_binaries
from depot_ops.postgres.dump import NotTaken, take_logical_backups
from depot_ops.postgres.dump_checks import verify, verify_newest
from depot_ops.postgres.dump_databases import dump_options, dumped_databases
from depot_ops.postgres.dump_record import BackupRecord, RecordTooNew, RecordUnusable, find_backups, glance, load_record
from depot_ops.postgres.prune import PruneError, configured
from depot_ops.postgres.prune import prune as prune_backups
from depot_ops.postgres.wal.archive import ArchiveError
from depot_ops.settings import (
    BackupSettings,
    BaseBackupSettings,
    CopyPlaceSettings,
    CopySettings,
    DumpSettings,
    RetentionSettings,
    SettingsError,
    load,
)

app = typer.Typer(help="Take, prove and list backups.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")]


class LogicalBackups(BaseModel):
    """What `--json` prints of a run: the records, and the databases of which none was taken."""

    taken: list[BackupRecord]
    not_taken: list[NotTaken]


@app.command()
def logical(as_json: Json = False) -> None:
    """Take a logical backup of each database into BACKUP_DIR, proved before it gets its name: 0 all, 1 not all taken.

    The depot's, those that BACKUP_DATABASES names on its server, and those of BACKUP_DATABASE_URLS.
    """
    try:
        settings = load(DumpSettings)
        urls = dumped_databases(settings.depot_dump_url.get_secret_value(), settings)
        taken, not_taken = take_logical_backups(
            urls, settings.backup_dir, find_binaries(), dump_options(settings), say=progress
        )
    except (SettingsError, BinariesNotFound) as error:
        raise failed(error, Status.UNHEALTHY) from None
    if as_json:
        typer.echo(LogicalBackups(taken=taken, not_taken=not_taken).model_dump_json(indent=2))
    for failure in not_taken:
        typer.secho(f"{failure.database}: {failure.reason}", fg="red", err=True)
    for record in [] if as_json else taken:
        figures = f"{record.size_bytes:,} bytes, {sum(record.row_counts.values()):,} rows, {record.duration_seconds} s"
        typer.echo(f"{settings.backup_dir / record.file}: {record.database}, {figures}, proved")
    if not_taken:
        raise typer.Exit(Status.UNHEALTHY.exit_code)


@app.command("globals")
def show_globals(dump: Annotated[Path, typer.Argument(help="A dump, with its record beside it.")]) -> None:
    """Print the statements that make the roles and tablespaces of a dump's cluster, for psql: 0 printed, 1 not."""
    try:
        saved = load_record(dump).globals
    except (RecordUnusable, RecordTooNew, OSError) as error:
        raise failed(error, Status.UNHEALTHY) from None
    if saved is None:
        typer.secho(f"{dump.name} was taken by a version that did not keep them", fg="red", err=True)
        raise typer.Exit(Status.UNHEALTHY.exit_code)
    typer.echo(saved.sql, nl=False)


@app.command()
def full(as_json: Json = False) -> None:
    """Take a full base backup into BACKUP_DIR, verified before it gets its name: 0 taken, 1 not taken."""
    _take_base_backup(BaseBackupKind.FULL, as_json)


@app.command()
def incremental(as_json: Json = False) -> None:
    """Take a base backup of what changed since the newest one: 0 taken, 1 not taken. PostgreSQL 17 and later."""
    _take_base_backup(BaseBackupKind.INCREMENTAL, as_json)


def _take_base_backup(kind: BaseBackupKind, as_json: bool) -> None:
    try:
        settings = load(BaseBackupSettings)
        rate = settings.base_backup_max_rate
        backup = take_base_backup(
            settings.source_url, settings.backup_dir, find_binaries(), kind, max_rate=rate, say=progress
        )
    except (SettingsError, BinariesNotFound, BaseBackupError) as error:
        raise failed(error, Status.UNHEALTHY) from None
    record = backup.record
    if as_json:
        typer.echo(record.model_dump_json(indent=2))
        return
    took = f"{record.duration_seconds} s and {record.verify_seconds} s to verify"
    typer.echo(f"{backup.path}: {record.stored_size_bytes:,} of {record.size_bytes:,} bytes in {took}")


@app.command()
def chains(
    verify: Annotated[bool, typer.Option("--verify", help="Read every file against its manifest.")] = False,
    as_json: Json = False,
) -> None:
    """List the base backups in BACKUP_DIR, and whether each one's chain is whole.

    0 each is, 1 one is not or there is none, 3 unknown.
    """
    try:
        directory = load(BackupSettings).backup_dir
        paths = find_base_backups(directory)
        binaries = find_binaries()
    except (SettingsError, BinariesNotFound, OSError) as error:
        raise failed(error, Status.UNKNOWN) from None
    findings = [check_chain(path) for path in paths]
    if verify:
        sound = [path for path, finding in zip(paths, findings, strict=True) if finding.status is Status.HEALTHY]
        for path in sound:
            progress(f"reading {path.name}")
            findings.append(verify_base_backup(load_base_backup(path), binaries))
    none = Finding(check="exists", status=Status.UNHEALTHY, detail=f"there is no base backup in {directory}")
    raise reported(findings or [none], as_json)


@app.command("verify")
def verify_backup(
    dump: Annotated[
        Path | None, typer.Argument(help="A dump. Left out: each database's newest, and the newest base backups.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Prove a backup again from what lies on disk now: 0 healthy, 1 unhealthy, 3 unknown.

    A base backup is proved with all that it builds on; `chains --verify` reads every one that there is.
    """
    try:
        if dump is not None:
            findings = verify(dump, find_binaries())
        else:
            directory = load(BackupSettings).backup_dir
            findings = verify_newest(directory, say=progress)
            findings += verify_newest_chains(directory, find_binaries(), progress)
    except (SettingsError, BinariesNotFound, OSError) as error:
        raise failed(error, Status.UNKNOWN) from None
    raise reported(findings, as_json)


@app.command("list")
def list_backups(
    from_copy: Annotated[bool, typer.Option("--from-copy", help="Those at BACKUP_COPY_URL.")] = False,
    as_json: Json = False,
) -> None:
    """List the base backups and the dumps in BACKUP_DIR, oldest first, without reading them (that is `verify`).

    0 each has its record and its size, 1 one has not or there is none, 3 unknown.
    """
    if from_copy:
        raise _look_at_copy(list_copy, as_json)
    try:
        directory = load(BackupSettings).backup_dir
        findings = [check_chain(path) for path in find_base_backups(directory)]
        findings += [glance(dump) for dump in find_backups(directory)]
    except (SettingsError, OSError) as error:
        raise failed(error, Status.UNKNOWN) from None
    none = Finding(check="exists", status=Status.UNHEALTHY, detail=f"there is no backup in {directory}")
    raise reported(findings or [none], as_json)


@app.command("copy")
def copy_to_place(
    verify: Annotated[bool, typer.Option("--verify", help="Read the copy instead, and compare every hash.")] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Read the copy, and copy again what is damaged there and sound here.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Copy to BACKUP_COPY_URL what is proved here and not there yet: 0 all is there, 1 some was refused, 3 unknown.

    Killed anywhere, it is run again and goes on. With --verify: 0 all is intact, 1 what is named is not, 3 unknown.
    """
    if verify:
        raise _look_at_copy(lambda holdings: list(verify_copy(holdings)), as_json)
    try:
        settings = load(CopySettings)
        place = open_place(settings.backup_copy_url)
        say = (lambda _: None) if as_json else typer.echo
        if repair:
            _remove_damaged(settings, place, say)
        copied = copy_backups(settings.backup_dir, settings.wal_archive_dir, place, say=say)
    except (SettingsError, PlaceError, CopyError, ArchiveError, OSError) as error:
        raise failed(error, Status.UNKNOWN) from None
    if as_json:
        typer.echo(copied.model_dump_json(indent=2))
        raise typer.Exit(copied.status.exit_code)
    done = f"{len(copied.copied)} copied, {copied.copied_bytes:,} bytes, {len(copied.refused)} refused"
    typer.echo(f"{copied.place}: {done}; {sum(copied.units.values())} are to be there")
    raise typer.Exit(copied.status.exit_code)


def _remove_damaged(settings: CopySettings, place: Place, say: Callable[[str], None]) -> None:
    with TemporaryDirectory(prefix="depot-copy-") as home:
        holdings = look(place, Path(home))
        for found in verify_copy(holdings):
            if found.status is not Status.HEALTHY:
                say(f"damaged {found.detail}")
        for key in remove_damaged(holdings, settings.backup_dir, settings.wal_archive_dir):
            say(f"removed {key}")


def _look_at_copy(look_at: Callable[[Holdings], list[Finding]], as_json: bool) -> typer.Exit:
    try:
        place = open_place(load(CopyPlaceSettings).backup_copy_url)
        with TemporaryDirectory(prefix="depot-copy-") as home:
            findings = look_at(look(place, Path(home)))
    except (SettingsError, PlaceError, ArchiveError, OSError) as error:
        return failed(error, Status.UNKNOWN)
    none = Finding(check="exists", status=Status.UNHEALTHY, detail=f"there is no backup at {place}")
    return reported(findings or [none], as_json)


@app.command()
def prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go, and why.")] = False,
    at_copy: Annotated[
        bool, typer.Option("--at-copy", help="At BACKUP_COPY_URL: what is not here any more, by the same rules.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Delete the dumps, chains and log that BACKUP_KEEP_* and BASE_KEEP_DAYS let go: 0 done, 1 not or not all.

    Log only goes once a restore drill has proved a kept backup. Nothing goes while a backup is being taken.
    """
    try:
        retention = configured(load(RetentionSettings))
        if at_copy:
            place = open_place(load(CopyPlaceSettings).backup_copy_url)
            pruned = prune_copy(retention, place, dry_run=dry_run)
        else:
            pruned = prune_backups(retention, dry_run=dry_run, say=progress)
    except (SettingsError, PruneError, PlaceError, CopyError) as error:
        raise failed(error, Status.UNHEALTHY) from None
    if as_json:
        typer.echo(pruned.model_dump_json(indent=2))
        return
    width = max((len(decision.name) for decision in pruned.decisions), default=0)
    for decision in pruned.decisions:
        columns = f"{decision.kind:<10}  {decision.name:<{width}}  {decision.size_bytes:>15,} bytes  {decision.reason}"
        typer.echo(f"{decision.action:<6}  {columns}")
    would_be = "would be deleted" if dry_run else "deleted"
    typer.echo(f"{len(pruned.deleted)} of {len(pruned.decisions)} {would_be}: {pruned.freed_bytes:,} bytes")
