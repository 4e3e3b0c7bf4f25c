"""`depot-ops blobs`: the copies of the blob store."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated

import psycopg
import structlog
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from depot_ops.blobs import run
from depot_ops.blobs.collect import CollectError
from depot_ops.blobs.inventory import PREFIXES, CopyUnreachable, require_store
from depot_ops.blobs.mirror import Mirrored, MirrorError, MirrorOptions, open_mirror
from depot_ops.blobs.push import Push, Pushed, PushError, PushOptions
from depot_ops.blobs.records import BlobRecords, CatalogueUnreachable
from depot_ops.blobs.remote import bucket_alone, copies_with, push_target
from depot_ops.blobs.restore import BlobRestoreError, RestoredBlobs, affected_by, of_catalogue, restore_blobs
from depot_ops.blobs.scrub import Scrubbed, ScrubRunning, shard_of
from depot_ops.blobs.scrub_copies import CopyName
from depot_ops.console import failed, reported
from depot_ops.evidence import Status
from depot_ops.places import PlaceError
from depot_ops.postgres.client_tools import BadAddress, parse_address
from depot_ops.settings import BlobSettings, CatalogueSettings, MirrorSettings, PushSettings, SettingsError, load

log = structlog.get_logger("depot_ops")
app = typer.Typer(help="Mirror, push, scrub, collect and restore the blob store.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="JSON instead of text.")]


@app.command()
def mirror(
    follow: Annotated[bool, typer.Option("--follow", help="Go on: new objects follow within seconds.")] = False,
    interval_seconds: Annotated[float, typer.Option(min=0.05, help="Between two looks, with --follow.")] = 1.0,
    as_json: Json = False,
) -> None:
    """Copy what the mirror lacks, verified on arrival: 0 the mirror has all, 1 it has not. Killed, it goes on.

    Nothing is ever deleted from the mirror by this. Example: depot-ops blobs mirror --follow
    """
    stop = threading.Event()
    _stop_on_signals(stop)
    try:
        settings = load(BlobSettings)
        source, target = settings.asset_storage_path, settings.asset_storage_replica_path
        options = MirrorOptions(settings.blob_workers, settings.mirror_bytes_per_second)
        with open_mirror(source, target, options, stop) as opened:
            if follow:
                _follow(opened.follow_once, stop, interval_seconds, as_json)
                return
            with _progress("mirrored") as told:
                result = opened.reconcile(told)
    except (SettingsError, CopyUnreachable, MirrorError, OSError) as error:
        raise failed(error, Status.UNHEALTHY) from None
    _tell_mirrored(result, as_json)
    raise typer.Exit(0 if result.is_complete and not stop.is_set() else 1)


def _follow(
    follow_once: Callable[[], Mirrored | Pushed], stop: threading.Event, interval_seconds: float, as_json: bool
) -> None:
    trouble = ""
    while not stop.is_set():
        try:
            result = follow_once()
        except (MirrorError, PushError) as error:  # a full or unplugged disk, a bucket away: told once, tried again
            if str(error) != trouble:
                log.warning("copying failed", error=str(error))
            trouble = str(error)
        else:
            trouble = ""
            if result.has_copied or not result.is_complete:
                _log_copied(result, as_json)
        stop.wait(interval_seconds)


def _log_copied(result: Mirrored | Pushed, as_json: bool) -> None:
    if as_json:
        typer.echo(result.model_dump_json())
        return
    event = "mirrored" if isinstance(result, Mirrored) else "pushed"
    log.info(event, **result.model_dump(mode="json", exclude={"damaged"}), complete=result.is_complete)
    for damage in result.damaged:
        log.error("the store is damaged", **damage.model_dump(mode="json"))


def _tell_mirrored(result: Mirrored, as_json: bool) -> None:
    if as_json:
        typer.echo(result.model_dump_json())
        return
    typer.echo(
        f"{result.target}: {result.objects_copied:,} of {result.objects_seen:,} objects ({result.copied_bytes:,} bytes)"
        f" and {result.refs_copied:,} documents copied in {result.duration_seconds} s"
    )
    for damage in result.damaged:
        typer.secho(f"not copied: {damage.sha256} in the store is damaged: {damage.seen}", fg="red", err=True)
    for name in result.unreadable_refs:
        typer.secho(f"not copied: refs/{name} in the store cannot be read as JSON", fg="red", err=True)


@app.command()
def push(
    follow: Annotated[bool, typer.Option("--follow", help="Go on: new objects follow within seconds.")] = False,
    interval_seconds: Annotated[float, typer.Option(min=0.05, help="Between two looks, with --follow.")] = 1.0,
    as_json: Json = False,
) -> None:
    """Send the bucket at BLOB_COPY_URL what it lacks: 0 it has all, 1 it has not. Killed, it goes on.

    Every object is read through before it is sent; nothing is deleted. Example: depot-ops blobs push --follow
    """
    stop = threading.Event()
    _stop_on_signals(stop)
    try:
        settings = load(PushSettings)
        options = PushOptions(settings.blob_workers, settings.push_bytes_per_second)
        opened = Push(require_store(settings.asset_storage_path), push_target(), options, stop)
        if follow:
            _follow(opened.follow_once, stop, interval_seconds, as_json)
            return
        with _progress("pushed") as told:
            result = opened.reconcile(told)
    except (SettingsError, CopyUnreachable, PlaceError, PushError) as error:
        raise failed(error, Status.UNHEALTHY) from None
    _tell_pushed(result, as_json)
    raise typer.Exit(0 if result.is_complete and not stop.is_set() else 1)


def _tell_pushed(result: Pushed, as_json: bool) -> None:
    if as_json:
        typer.echo(result.model_dump_json())
        return
    typer.echo(
        f"{result.target}: {result.objects_sent:,} of {result.objects_seen:,} objects ({result.sent_bytes:,} bytes)"
        f" and {result.refs_sent:,} documents sent in {result.duration_seconds} s"
    )
    for damage in result.damaged:
        typer.secho(f"not sent: {damage.sha256} in the store is damaged: {damage.seen}", fg="red", err=True)
    for name in result.unreadable_refs:
        typer.secho(f"not sent: refs/{name} in the store cannot be read as JSON", fg="red", err=True)


@app.command("verify-bucket")
def verify(
    shard: Annotated[str, typer.Option(metavar="N/T", help="Part N of T, of all objects.")] = "1/1",
    as_json: Json = False,
) -> None:
    """Scrub the bucket alone and send again what is damaged there: 0 all is right or repaired, 1 not, 3 unknown.

    Object storage bills for what is read. Example: depot-ops blobs verify-bucket --shard 3/30
    """
    chosen = partial(run.scrub, _shard(shard), repair=True, with_bucket=True, only=CopyName.BUCKET)
    raise _scrubbed(chosen, as_json)


@app.command()
def check(as_json: Json = False) -> None:
    """Are the copies complete, do they keep up, was all read through in time? 0 healthy, 1 unhealthy, 3 unknown."""
    try:
        findings = [look() for look in run.checks_of_copies()]
    except SettingsError as error:
        raise failed(error, Status.UNKNOWN) from None
    raise reported(findings, as_json)


@app.command()
def scrub(
    shard: Annotated[str, typer.Option(metavar="N/T", help="Part N of T, of all objects.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="All objects, not only those whose turn it is.")] = False,
    bucket: Annotated[bool, typer.Option("--bucket", help="With --all or --shard: those in the bucket too.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Repair each copy from the others.")] = False,
    as_json: Json = False,
) -> None:
    """Read objects through in every copy of the store: 0 all are right or repaired, 1 some are not, 3 unknown.

    Without --shard and --all: a day's share, so that everything on disk is read within SCRUB_PERIOD_DAYS, and in the
    bucket within SCRUB_BUCKET_PERIOD_DAYS. Object storage bills for what is read, so the rest needs --bucket.
    """
    if shard and everything:
        raise typer.BadParameter("take either --shard or --all")
    if bucket and not (shard or everything):
        raise typer.BadParameter("--bucket goes with --shard or --all; a day's share is read as the settings say")
    prefixes = _shard(shard) if shard else PREFIXES if everything else None
    raise _scrubbed(partial(run.scrub, prefixes, repair=repair, with_bucket=bucket), as_json)


def _scrubbed(scrub: Callable[..., Scrubbed], as_json: bool) -> typer.Exit:
    try:
        with _progress("scrubbed") as told:
            result = scrub(told=told)
    except (SettingsError, CopyUnreachable, ScrubRunning, CatalogueUnreachable, OSError) as error:
        raise failed(error, Status.UNKNOWN) from None
    _tell_scrubbed(result, as_json)
    return typer.Exit(result.status.exit_code)


def _shard(text: str) -> list[str]:
    number, _, total = text.partition("/")
    if not (number.isdecimal() and total.isdecimal() and 1 <= int(number) <= int(total) <= len(PREFIXES)):
        raise typer.BadParameter(f"{text} is no shard: give N/T with 1 ≤ N ≤ T ≤ {len(PREFIXES)}, for example 3/30")
    return shard_of(int(number), int(total))


def _tell_scrubbed(result: Scrubbed, as_json: bool) -> None:
    if as_json:
        typer.echo(result.model_dump_json(indent=2))
        return
    typer.echo(
        f"{result.objects_read:,} objects ({result.read_bytes:,} bytes) read in {result.duration_seconds} s,"
        f" {len(result.damaged):,} damaged, {len(result.unrepaired):,} not repaired"
        + (f", {result.archived_objects:,} archived and not read" if result.archived_objects else "")
    )
    for damaged in result.damaged:
        state = "repaired" if damaged.repaired else "damaged"
        typer.secho(f"{state} {damaged.sha256} in the {damaged.copy_name}: {damaged.seen}", fg="red", err=True)
    for version in result.affected:
        typer.secho(f"needed by {version}", fg="red", err=True)
    for name, why in result.unread.items():
        typer.secho(f"the {name} could not be read through: {why}", fg="red", err=True)


@app.command()
def collect(
    delete: Annotated[bool, typer.Option("--delete", help="Remove what is due. Left out: only tell.")] = False,
    as_json: Json = False,
) -> None:
    """Mark content that nothing refers to, and tell or remove what is due: 0 done, 1 refused, and then why.

    Due is what was unreferenced before COLLECT_GRACE_HOURS and before the oldest backup in
    BACKUP_DIR and at BACKUP_COPY_URL began.
    """
    try:
        result = run.collect(delete=delete)
    except (SettingsError, CollectError) as error:
        raise failed(error, Status.UNHEALTHY) from None
    if as_json:
        typer.echo(result.model_dump_json(indent=2))
        return
    typer.echo(
        f"{result.marked_objects:,} objects marked, {result.waiting_objects:,} ({result.waiting_bytes:,} bytes) wait,"
        f" {result.due_objects:,} ({result.due_bytes:,} bytes) were unreferenced before"
        f" {result.unreferenced_before:%Y-%m-%d %H:%M} UTC, {result.removed_objects:,} removed"
    )
    if not delete and result.due_objects:
        typer.echo("Nothing was removed. With --delete they go from every copy.")


@app.command()
def restore(
    project: Annotated[str | None, typer.Option(help="Only this project's content, by name or id.")] = None,
    branch: Annotated[str | None, typer.Option(help="Only the history of this branch of the project.")] = None,
    no_catalogue: Annotated[
        bool, typer.Option("--no-catalogue", help="All that lies in the copy: the catalogue is lost too.")
    ] = False,
    from_bucket: Annotated[
        bool, typer.Option("--from-bucket", help="From BLOB_COPY_URL alone: the mirror is lost too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Fill the store from its mirror and its bucket and prove it: 0 all that is referred to is there, 1 not, and what.

    Killed, it goes on; the copies are only read. Example: depot-ops blobs restore --project Hero --branch main
    """
    if (branch and not project) or (no_catalogue and project):
        raise typer.BadParameter("--branch needs --project, and both need the catalogue")
    try:
        copies = bucket_alone() if from_bucket else copies_with(load(MirrorSettings).asset_storage_replica_path)
        settings = load(PushSettings)
        store, workers = settings.asset_storage_path, settings.blob_workers
        if no_catalogue:
            result = restore_blobs(copies.everything(), copies.sources(), store, workers)
        else:
            url = load(CatalogueSettings).depot_dump_url.get_secret_value()
            parse_address(url)
            with psycopg.connect(url, autocommit=True, options="-c statement_timeout=0") as catalogue:
                wanted = of_catalogue(catalogue, project, branch)
                records = BlobRecords(catalogue)
                result = restore_blobs(wanted, copies.sources(), store, workers, still_wanted=records.of)
                result.affected = affected_by(catalogue, result.lost)
        if project is None:
            copies.restore_documents(store, workers, result, from_both=no_catalogue)
    except (SettingsError, CopyUnreachable, BlobRestoreError, PlaceError, BadAddress, psycopg.Error, OSError) as error:
        raise failed(error, Status.UNHEALTHY) from None
    raise _restored(result, as_json)


def _restored(result: RestoredBlobs, as_json: bool) -> typer.Exit:
    finding = result.finding()
    if as_json:
        typer.echo(result.model_dump_json(indent=2))
        return typer.Exit(finding.status.exit_code)
    for version in result.affected:
        typer.secho(f"lost: {version}", fg="red", err=True)
    return reported([finding], as_json=False)


def _stop_on_signals(stop: threading.Event) -> None:
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.set())


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar over the hash prefixes on standard error; none where that is no terminal."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(what)
        yield lambda done, all_: progress.update(task, completed=done, total=all_)
