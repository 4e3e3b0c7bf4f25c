"""depot submit, sync, status, verify"""

import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from depot_api.cli.credentials import connect
from depot_api.cli.output import AsJson, ExitCode, counted, human_bytes, note, progress_bars, shortened, show
from depot_api.cli.places import BranchOption, ProjectOption, choose_branch, whole_workspace, workspace_around
from depot_api.client.models import Item
from depot_api.client.opened import OpenedFile
from depot_api.client.scan import Skipped
from depot_api.client.submit import SubmitResult, submit_tree
from depot_api.client.sync import Status, SyncResult, Verification, sync_tree
from depot_api.client.sync import status as compare
from depot_api.client.sync import verify as verify_tree

HERE = Path()
Directory = Annotated[Path, typer.Argument(help="A workspace. Default: the current directory.")]


def submit(
    path: Annotated[Path | None, typer.Argument(help="The directory to submit.")] = None,
    message: Annotated[str | None, typer.Option("--message", "-m", help="What changed and why.")] = None,
    project: ProjectOption = None,
    branch: BranchOption = None,
    delete: Annotated[
        bool, typer.Option("--delete", help="Also delete in the depot what a directory without records lacks.")
    ] = False,
    opened: Annotated[
        bool, typer.Option("--opened", help="Only opened files; those that did not change stay opened.")
    ] = False,
    review: Annotated[bool, typer.Option("--review", help="Ask for a review instead of submitting.")] = False,
    reviewer: Annotated[
        list[str] | None, typer.Option("--reviewer", "-r", help="Ask this user for a review; can be repeated.")
    ] = None,
    changelist: Annotated[
        UUID | None, typer.Option("--changelist", "-c", help="Submit this open changelist instead of a directory.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Submit what changed in a directory as one changelist, all or nothing.

    A directory takes a message. Files that did not change are not read again. Interrupted, the same command
    goes on where it stopped.

    Example: depot submit ./Content --project Skyfall --branch main -m "New hero"
    """
    if changelist is not None:
        if path is not None or message is not None or reviewer or any((delete, opened, review)):
            raise typer.BadParameter("A changelist has its files and its message already: give --changelist alone.")
        _submit_changelist(changelist, as_json)
        return
    if path is None or message is None:
        raise typer.BadParameter("Name the directory to submit, and say with --message what changed.")
    began = time.monotonic()
    root = whole_workspace(path)
    with connect() as depot:
        to_project, to_branch = choose_branch(depot, project, branch, path)
        with progress_bars() as progress:
            result = submit_tree(
                depot,
                root,
                to_project,
                to_branch,
                message,
                delete_missing=delete,
                only_opened=opened,
                reviewers=reviewer or () if review or reviewer else None,
                progress=progress,
            )
    duration_seconds = time.monotonic() - began
    _warn_skipped(result.skipped)
    if not result.is_remembered:
        note(f"Nothing can be written in {root}, so the next submit will read every file again.")
    document = asdict(result) | {
        "project": to_project.name,
        "branch": to_branch.name,
        "duration_seconds": round(duration_seconds, 3),
    }
    show(as_json, document, [_submit_line(result, duration_seconds)])


def _submit_changelist(changelist_id: UUID, as_json: bool) -> None:
    with connect() as depot:
        # Its own id as the key: submitting a changelist a second time tells what the first time did.
        submitted = depot.submit_changelist(changelist_id, str(changelist_id))
    items = counted(submitted.items_count, "item")
    show(as_json, submitted, [f"Submitted changelist {submitted.number} with {items}; `depot sync` brings it here."])


def sync(
    directory: Annotated[Path, typer.Argument(help="Where to; created when needed.")] = HERE,
    project: ProjectOption = None,
    branch: BranchOption = None,
    at: Annotated[int | None, typer.Option(min=0, help="As of this changelist. Default: the newest.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite and delete local changes.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a directory hold a branch, now or as of any changelist.

    Local changes are kept; where the depot's version changed too, the file is listed as a conflict,
    left alone, and the exit code is 1. Interrupted, the same command goes on where it stopped.

    Example: depot sync ./work --project Skyfall --branch main --at 12
    """
    began = time.monotonic()
    root = whole_workspace(directory)
    with connect() as depot:
        of_project, of_branch = choose_branch(depot, project, branch, directory)
        with progress_bars() as progress:
            result = sync_tree(depot, root, of_project, of_branch, at=at, force=force, progress=progress)
    duration_seconds = time.monotonic() - began
    document = asdict(result) | {
        "project": of_project.name,
        "branch": of_branch.name,
        "duration_seconds": round(duration_seconds, 3),
    }
    show(as_json, document, _sync_lines(result, duration_seconds))
    if result.conflicts:
        note(
            "Conflicts were left as they are. To take the depot's side, run again with --force; "
            "to keep yours, move it away, sync with --force, move it back and submit."
        )
        raise typer.Exit(ExitCode.PROBLEM)


def status(directory: Directory = HERE, as_json: AsJson = False) -> None:
    """Show what changed in a workspace, what is opened in it, and what changed in the depot since.

    Example: depot status ./work
    """
    root = workspace_around(directory)
    with connect() as depot, progress_bars() as progress:
        result = compare(depot, root, progress)
    show(as_json, asdict(result), _status_lines(result))


def verify(directory: Directory = HERE, as_json: AsJson = False) -> None:
    """Read every file of a workspace again and compare it with what came from the depot.

    The exit code is 1 when a file is missing or different. No connection is needed.

    Example: depot verify ./work
    """
    with progress_bars() as progress:
        result = verify_tree(workspace_around(directory), progress)
    show(as_json, asdict(result) | {"is_intact": result.is_intact}, _verify_lines(result))
    if not result.is_intact:
        raise typer.Exit(ExitCode.PROBLEM)


def _warn_skipped(skipped: list[Skipped]) -> None:
    if skipped:
        note(f"Skipped, because only regular files are kept ({len(skipped)}):")
        for line in shortened([f"  {one.path} ({one.reason})" for one in skipped]):
            note(line)


def _submit_line(result: SubmitResult, duration_seconds: float) -> str:
    if result.awaits_review:
        return (
            f"Changelist {result.changelist_id} waits for a review; "
            f"approved: depot submit --changelist {result.changelist_id}"
        )
    if result.number is None:
        return f"Nothing changed: {counted(result.unchanged, 'file')} looked at in {duration_seconds:.1f} s."
    if result.number == result.finished_earlier:
        return f"Changelist {result.number} was submitted by the interrupted run; nothing changed since."
    return (
        f"Submitted changelist {result.number}: {result.added} added, {result.edited} edited, {result.moved} moved, "
        f"{result.deleted} deleted; sent {human_bytes(result.sent_bytes)} in {duration_seconds:.1f} s."
    )


def _sync_lines(result: SyncResult, duration_seconds: float) -> Iterator[str]:
    if result.kept:
        yield f"{counted(len(result.kept), 'local change')} kept (a sync with --force drops them):"
        yield from shortened([f"  {path}" for path in result.kept])
    if result.conflicts:
        yield f"{counted(len(result.conflicts), 'conflict')}:"
        yield from shortened([f"  {one.path}: {one.reason}" for one in result.conflicts])
    yield (
        f"Synced to changelist {result.at}: {result.fetched} fetched, {result.removed} removed, "
        f"{result.unchanged} right already; received {human_bytes(result.fetched_bytes)} in {duration_seconds:.1f} s."
    )


def _status_lines(result: Status) -> Iterator[str]:
    at = "a mixture of changelists" if result.at is None else f"changelist {result.at}"
    yield f"Project {result.target.project_name}, branch {result.target.branch_name}: at {at}, newest {result.head_no}."
    if not result.changed_here and not result.changed_in_depot:
        yield "Nothing changed."
    if result.opened:
        yield f"{counted(len(result.opened), 'file')} opened, to submit with --opened:"
        yield from shortened([opened_line(one) for one in result.opened])
    if result.changed_here:
        yield f"{counted(len(result.changed_here), 'change')} here, to submit:"
        yield from shortened([_change_line(item) for item in result.changed_here])
    if result.changed_in_depot:
        yield f"{counted(len(result.changed_in_depot), 'change')} in the depot, to sync:"
        yield from shortened([_change_line(item) for item in result.changed_in_depot])


def _change_line(item: Item) -> str:
    return f"  {item.action:<6}  {item.path}" + (f" (from {item.moved_from})" if item.moved_from else "")


def opened_line(one: OpenedFile) -> str:
    """As `depot status` lists it."""
    version = f"#{one.base_version}" if one.base_version else "new"
    return f"  {one.action:<6}  {one.path} ({version})"


def _verify_lines(result: Verification) -> Iterator[str]:
    yield from shortened([f"  missing    {path}" for path in result.missing])
    yield from shortened([f"  different  {path}" for path in result.different])
    bad = len(result.missing) + len(result.different)
    verdict = f"{bad} differ" if bad else "all right"
    yield f"Verified {counted(result.checked, 'file')}, {human_bytes(result.checked_bytes)}: {verdict}."
