"""`depot-ops tier`: colder storage for what is old, by a written policy."""

from typing import Annotated

import typer

from depot_ops.blobs.inventory import CopyUnreachable
from depot_ops.blobs.records import CatalogueUnreachable
from depot_ops.console import failed
from depot_ops.evidence import Status
from depot_ops.places import PlaceError
from depot_ops.settings import SettingsError, TierMode
from depot_ops.tiering.documents import DocumentError
from depot_ops.tiering.evict import Evicted
from depot_ops.tiering.lifecycle import LifecycleChange, LifecycleRefused
from depot_ops.tiering.plan import Plan
from depot_ops.tiering.prices import GIB
from depot_ops.tiering.run import configured
from depot_ops.tiering.run import evict as run_evict
from depot_ops.tiering.transitions import Tiered

app = typer.Typer(help="Move cold content to cheaper storage by a written policy.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="JSON instead of text.")]
UNUSABLE = (SettingsError, DocumentError, LifecycleRefused, PlaceError, CatalogueUnreachable, OSError)


@app.command()
def plan(as_json: Json = False) -> None:
    """What the policy would move, and what each class costs a month before and after. Changes nothing.

    Example: TIER_POLICY_PATH=/etc/depot/tiering.yaml depot-ops tier plan
    """
    try:
        found = configured().plan()
    except UNUSABLE as error:
        raise failed(error, Status.UNKNOWN) from None
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
        return
    _tell_plan(found)


def _tell_plan(found: Plan) -> None:
    line = "{:<20}{:>13}{:>12}{:>12}  {:>13}{:>12}{:>12}".format
    typer.echo(line("", "before:", "", "", "after:", "", ""))
    typer.echo(line("class", *["objects", "GiB", "a month"] * 2))
    for one in found.classes:
        if one.objects_before or one.objects_after:
            before = (f"{one.objects_before:,}", f"{one.bytes_before / GIB:,.1f}", _cost(one.cost_before))
            after = (f"{one.objects_after:,}", f"{one.bytes_after / GIB:,.1f}", _cost(one.cost_after))
            typer.echo(line(one.storage_class, *before, *after))
    typer.echo(line("together", "", "", _cost(found.cost_before), "", "", _cost(found.cost_after)))
    for move in found.moves:
        typer.echo(f"{move.before} → {move.after}: {move.objects:,} objects, {move.size_bytes:,} bytes")
    typer.echo(
        f"The moves cost {found.moves_cost:,.2f} {found.currency} once, without restores from archives and what is"
        f" charged for leaving a class early. Sums are in {found.currency} ({found.price_note or 'no note'})."
    )
    if found.objects_not_in_bucket:
        typer.echo(f"{found.objects_not_in_bucket:,} objects are not in the bucket yet. Run `depot-ops blobs push`.")
    if found.objects_not_in_catalogue:
        typer.echo(f"{found.objects_not_in_catalogue:,} objects are in no record of the catalogue, and stay.")
    if found.objects_in_other_classes:
        typer.echo(f"{found.objects_in_other_classes:,} objects are in classes that the depot does not use, and stay.")


def _cost(cost: float | None) -> str:
    return "no price" if cost is None else f"{cost:,.2f}"


@app.command()
def apply(as_json: Json = False) -> None:
    """Do what the policy says in the way of TIER_MODE: 0 done, 1 some objects could not be moved, 3 unknown.

    explicit: every object is moved to its class, down or up; from an archive it is restored first, which takes hours
    and is taken up by a later run. lifecycle: the bucket's rules are written, and S3 moves. Killed, it is run again.
    """
    try:
        tiering = configured()
        change = tiering.configuration(write=True)
        result = tiering.apply() if tiering.mode is TierMode.EXPLICIT else None
    except UNUSABLE as error:
        raise failed(error, Status.UNKNOWN) from None
    if as_json:
        typer.echo((result or change).model_dump_json(indent=2))
    else:
        _tell_change(change, written=True)
    if result is None:
        return
    if not as_json:
        _tell_tiered(result)
    raise typer.Exit(1 if result.failed else 0)


def _tell_tiered(result: Tiered) -> None:
    typer.echo(
        f"{result.bucket}: {result.moved_objects:,} objects ({result.moved_bytes:,} bytes) moved in"
        f" {result.duration_seconds} s, {result.moved_up_objects:,} of them up"
    )
    if waiting := result.restore_requested_objects + result.restoring_objects:
        typer.echo(f"{waiting:,} objects are being restored from an archive. A run some hours from now takes them up.")
    for line in result.failed:
        typer.secho(f"not moved: {line}", fg="red", err=True)
    if result.stopped:
        typer.secho("The rest was not looked at: too many failed. Run it again when the cause is gone.", err=True)


@app.command()
def lifecycle(
    write: Annotated[bool, typer.Option("--apply", help="Write it. Left out: only tell.")] = False,
    as_json: Json = False,
) -> None:
    """The bucket's own rules by policy and TIER_MODE, and the Intelligent-Tiering archive: 0 told or written, 3 not.

    Rules of others stay as they are. In explicit mode there are no rules of ours, and those of before go.
    """
    try:
        change = configured().configuration(write=write)
    except UNUSABLE as error:
        raise failed(error, Status.UNKNOWN) from None
    if as_json:
        typer.echo(change.model_dump_json(indent=2))
        return
    _tell_change(change, write)


@app.command()
def evict(
    delete: Annotated[bool, typer.Option("--delete", help="Remove it. Left out: only tell.")] = False,
    as_json: Json = False,
) -> None:
    """Let content leave the store's own disk that the policy does not keep there: 0 done, 1 some stays, 3 unknown.

    Only what mirror and bucket both have, whole: with --delete both are read and hashed for each object before it goes.
    Reading it later fetches it back.
    """
    try:
        result = run_evict(delete=delete)
    except (*UNUSABLE, CopyUnreachable) as error:
        raise failed(error, Status.UNKNOWN) from None
    if as_json:
        typer.echo(result.model_dump_json(indent=2))
    else:
        _tell_evicted(result, delete)
    raise typer.Exit(1 if result.kept_objects else 0)


def _tell_evicted(result: Evicted, delete: bool) -> None:
    typer.echo(
        f"{result.cold_objects:,} cold objects ({result.cold_bytes:,} bytes) on the store's disk,"
        f" {result.evicted_objects:,} ({result.freed_bytes:,} bytes) evicted in {result.duration_seconds} s"
    )
    if not delete and result.cold_objects:
        typer.echo("Nothing was removed. With --delete they go, as far as mirror and bucket both have them whole.")
    for kept in result.kept:
        typer.secho(f"kept {kept.sha256}: in the {kept.copy_name}, {kept.seen}", fg="red", err=True)
    if result.kept_objects > len(result.kept):
        typer.secho(f"and {result.kept_objects - len(result.kept):,} more are kept", fg="red", err=True)


def _tell_change(change: LifecycleChange, written: bool) -> None:
    verb = "written" if written else "would be written with --apply"
    for line in change.rules:
        typer.echo(line)
    for line in change.archive_tiers:
        typer.echo(f"INTELLIGENT_TIERING: {line} without a read")
    changed = [
        *(["lifecycle rules"] if change.rules_changed else []),
        *(["the Intelligent-Tiering archive"] if change.archive_tiers_changed else []),
    ]
    told = f"{' and '.join(changed)} {verb}" if changed else "the bucket is configured so already"
    typer.echo(f"{told}; {change.foreign_rules:,} rules of others stay")
