"""`depot-ops wal`: the log on its way into the archive and back."""

import json
import signal
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import structlog
import typer

from depot_ops.console import failed, reported
from depot_ops.evidence import Finding, Status
from depot_ops.postgres.base_record import BaseRecordUnusable, oldest_needed_segment
from depot_ops.postgres.binaries import BinariesNotFound, find_binaries
from depot_ops.postgres.client_tools import BadAddress
from depot_ops.postgres.wal import hooks
from depot_ops.postgres.wal.archive import ArchiveError, WalArchive, open_archive
from depot_ops.postgres.wal.collector import Collected, CollectError, CollectorRunning, collect
from depot_ops.postgres.wal.content import BadWalFile
from depot_ops.postgres.wal.inventory import check_continuity, check_intact, take_stock
from depot_ops.postgres.wal.progress import archive_of, check_backlog, check_freshness, check_spool
from depot_ops.postgres.wal.stream import SLOT, check_stream
from depot_ops.postgres.wal.timelines import UnknownTimeline
from depot_ops.replicas.receiver import ReceiveError, receive

log = structlog.get_logger("depot_ops")
app = typer.Typer(help="Collect the log, list and check its archive.", no_args_is_help=True)

AS_A_SERVER_CALLS = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}

Archive = Annotated[Path, typer.Option(envvar="WAL_ARCHIVE_DIR", help="The archive of the log.")]
SystemIdentifier = Annotated[int | None, typer.Option(help="The cluster, where the archive has several.")]
BackupDir = Annotated[Path | None, typer.Option(envvar="BACKUP_DIR", help="Whose oldest backup counts.")]
Json = Annotated[bool, typer.Option("--json", help="JSON instead of text.")]


@app.command("collect")
def collect_spool(
    spool: Annotated[Path, typer.Option(envvar="WAL_SPOOL_DIR", help="What basic_archive fills.")],
    archive: Archive,
    system_identifier: SystemIdentifier = None,
    once: Annotated[bool, typer.Option("--once", help="One pass instead of going on.")] = False,
    interval_seconds: Annotated[float, typer.Option(min=0.05, help="Between two passes.")] = 1.0,
    as_json: Json = False,
) -> None:
    """Move finished segments from the spool into the archive: 0 all, 1 some were refused or none could be."""
    stop = _stopped_by_signals()
    last = Collected()
    while not stop.is_set():
        try:
            collected = collect(spool, archive, system_identifier)
            if once or (as_json and collected != last):
                _tell(collected, as_json)
            elif collected != last:  # what is refused is refused again in each pass, and told once
                _log(collected)
            last = collected
        except CollectError as error:
            if once or isinstance(error, CollectorRunning):
                raise failed(error, Status.UNHEALTHY) from None
            log.warning("wal collection failed", error=str(error))
        else:
            if once:
                raise typer.Exit(1 if collected.refused else 0)
        stop.wait(interval_seconds)


@app.command("receive")
def receive_log(
    directory: Annotated[Path, typer.Option("--dir", envvar="WAL_STREAM_DIR", help="Where the stream is written.")],
    archive: Archive,
    url: Annotated[str, typer.Option(envvar="DEPOT_REPLICATION_URL", help="The primary, as a superuser.")],
    slot: Annotated[str, typer.Option(help="The replication slot; made where it is missing.")] = SLOT,
    system_identifier: SystemIdentifier = None,
    interval_seconds: Annotated[float, typer.Option(min=0.05, help="Between two passes of collecting.")] = 1.0,
    as_json: Json = False,
) -> None:
    """Receive the log as it is written, and move finished segments into the archive: 1 when the stream ends."""
    last = Collected()

    def hand_over() -> None:
        nonlocal last
        try:
            collected = collect(directory, archive, system_identifier, streamed=True)
        except CollectError as error:  # the stream goes on: its directory keeps what the archive does not take
            log.warning("wal collection failed", error=str(error))
            return
        if collected != last and as_json:
            _tell(collected, as_json)
        elif collected != last:
            _log(collected)
        last = collected

    try:
        receive(url, directory, find_binaries(), slot, _stopped_by_signals(), interval_seconds, hand_over)
    except (ReceiveError, BadAddress, BinariesNotFound) as error:
        raise failed(error, Status.UNHEALTHY) from None


def _stopped_by_signals() -> threading.Event:
    stop = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.set())
    return stop


def _log(collected: Collected) -> None:
    if collected.stored or collected.already_there:
        log.info("wal collected", **asdict(collected) | {"refused": len(collected.refused)})
    for refusal in collected.refused:
        log.warning("wal refused", **asdict(refusal))


def _tell(collected: Collected, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(asdict(collected)))
        return
    for name in collected.stored:
        typer.echo(f"stored {name}")
    for name in collected.already_there:
        typer.echo(f"already there {name}")
    for refusal in collected.refused:
        typer.secho(f"refused {refusal.reason}", fg="red", err=True)


@app.command("list")
def list_archive(
    archive: Archive,
    system_identifier: SystemIdentifier = None,
    backup_dir: BackupDir = None,
    as_json: Json = False,
) -> None:
    """List what the archive has of each timeline: 0 without a gap, 1 with one, 3 unknown."""
    try:
        opened = open_archive(archive, system_identifier)
        stocks = take_stock(opened, _oldest_needed(backup_dir, opened))
    except (ArchiveError, BadWalFile, UnknownTimeline, BaseRecordUnusable, OSError) as error:
        raise failed(error, Status.UNKNOWN) from None
    findings = [
        Finding(
            check=f"timeline {stock.timeline}",
            status=Status.UNHEALTHY if stock.missing else Status.HEALTHY,
            detail=f"{stock.first} to {stock.last}, {stock.segments} segments, {len(stock.missing)} missing",
            figures={"segments": stock.segments, "missing_segments": len(stock.missing)},
        )
        for stock in stocks
    ]
    none = Finding(check="exists", status=Status.UNHEALTHY, detail=f"there is no segment in {archive}")
    raise reported(findings or [none], as_json)


@app.command()
def check(
    archive: Archive,
    system_identifier: SystemIdentifier = None,
    backup_dir: BackupDir = None,
    spool: Annotated[Path | None, typer.Option(envvar="WAL_SPOOL_DIR", help="What waits here is counted.")] = None,
    url: Annotated[str | None, typer.Option(envvar="DEPOT_REPLICATION_URL", help="Whose progress is probed.")] = None,
    stream: Annotated[Path | None, typer.Option(envvar="WAL_STREAM_DIR", help="Where `wal receive` writes.")] = None,
    arrival_seconds: Annotated[float, typer.Option(min=0, help="How long a probe may take to arrive.")] = 60.0,
    deep: Annotated[bool, typer.Option("--deep", help="Read and hash every file.")] = False,
    as_json: Json = False,
) -> None:
    """Is the archive whole, and does the log arrive in it? 0 healthy, 1 unhealthy, 3 unknown."""
    try:
        opened = archive_of(url, archive, system_identifier) if url else open_archive(archive, system_identifier)
        oldest = _oldest_needed(backup_dir, opened)
    except (ArchiveError, BaseRecordUnusable, OSError) as error:
        raise failed(error, Status.UNKNOWN) from None
    findings = []
    if url:  # the probe first: by it the first segment of a new server gets there
        findings += [check_freshness(url, opened, arrival_seconds=arrival_seconds), check_backlog(url)]
    findings += [check_continuity(opened, oldest), check_intact(opened, deep=deep)]
    if url and stream:
        findings.append(check_stream(url, stream, opened))
    if spool:
        findings.append(check_spool(spool))
    raise reported(findings, as_json)


def _oldest_needed(backup_dir: Path | None, archive: WalArchive) -> str | None:
    if backup_dir is None or not backup_dir.is_dir():
        return None
    return oldest_needed_segment(backup_dir, archive.system_identifier)


@app.command(context_settings=AS_A_SERVER_CALLS)
def push(context: typer.Context) -> None:
    """archive_command = 'depot-ops wal push %p --archive DIR': 0 archived, 1 not."""
    hooks.main(["push", *context.args])


@app.command(context_settings=AS_A_SERVER_CALLS)
def get(context: typer.Context) -> None:
    """restore_command = 'depot-ops wal get %f %p --archive DIR': 0 there, 1 proved absent, 126 anything else.

    With --prefetch DIR, the segments that follow are fetched into that directory meanwhile.
    """
    hooks.main(["get", *context.args])
