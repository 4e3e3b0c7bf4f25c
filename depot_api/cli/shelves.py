"""depot shelve, unshelve, shelves"""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from depot_api.cli.credentials import connect
from depot_api.cli.output import AsJson, ExitCode, counted, human_bytes, note, progress_bars, shortened, show, table
from depot_api.cli.places import BranchOption, ProjectOption, choose_project, workspace_around
from depot_api.client.models import Shelf
from depot_api.client.shelve import ShelveResult, UnshelveResult, shelve_tree, unshelve_tree

HERE = Path()
Directory = Annotated[Path, typer.Argument(help="A workspace. Default: the current directory.")]
ShelfId = Annotated[UUID, typer.Argument(metavar="SHELF", help="A shelf's id; `depot shelves` lists them.")]


def shelve(
    directory: Directory = HERE,
    message: Annotated[str, typer.Option("--message", "-m", help="What it is.")] = "",
    into: Annotated[UUID | None, typer.Option("--into", help="Replace what is on this shelf.")] = None,
    changelist: Annotated[
        UUID | None, typer.Option("--changelist", "-c", help="Shelve this open changelist instead of a workspace.")
    ] = None,
    delete: Annotated[UUID | None, typer.Option("--delete", "-d", help="Delete this shelf; shelve nothing.")] = None,
    as_json: AsJson = False,
) -> None:
    """Store the local changes of a workspace in the depot, where others can fetch them. Files stay as they are.

    Example: depot shelve ./work -m "Hero, half done"
    """
    if sum(option is not None for option in (into, changelist, delete)) > 1:
        raise typer.BadParameter("--into, --changelist and --delete are three different things: give one of them.")
    with connect() as depot:
        if delete is not None:
            depot.delete_shelf(delete)
            show(as_json, {"deleted": delete}, [f"Deleted shelf {delete}."])
            return
        if changelist is not None:
            result = ShelveResult(depot.shelve_changelist(changelist, message or None))
        else:
            with progress_bars() as progress:
                result = shelve_tree(depot, workspace_around(directory), message, into=into, progress=progress)
    document = {"shelf": result.shelf, "sent_objects": result.sent_objects, "sent_bytes": result.sent_bytes}
    show(as_json, document, [_shelve_line(result)])


def unshelve(
    shelf: ShelfId,
    directory: Directory = HERE,
    changelist: Annotated[
        UUID | None, typer.Option("--changelist", "-c", help="Copy the items into this open changelist of yours.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite local changes, or items that the changelist has.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring a shelf, yours or someone else's, into a workspace as local changes, or into a changelist.

    Files that you changed, or that the shelf changed from another version than you have, are listed
    as conflicts and left alone, and the exit code is 1.

    Example: depot unshelve 0198c6a2-7c1e-7d7e-a4b8-0242ac120002 ./work
    """
    with connect() as depot:
        if changelist is not None:
            count = depot.unshelve(shelf, changelist, replace=force)
            document = {"changelist_id": changelist, "items_count": count}
            show(as_json, document, [f"Unshelved; changelist {changelist} has {counted(count, 'item')} now."])
            return
        with progress_bars() as progress:
            result = unshelve_tree(
                depot, workspace_around(directory), depot.shelf(shelf), force=force, progress=progress
            )
    show(as_json, asdict(result), _unshelve_lines(result))
    if result.conflicts:
        note("Conflicts were left as they are. Sync or move your files away, or run again with --force.")
        raise typer.Exit(ExitCode.PROBLEM)


def shelves(
    project: ProjectOption = None,
    branch: BranchOption = None,
    mine: Annotated[bool, typer.Option("--mine", help="Only yours.")] = False,
    as_json: AsJson = False,
) -> None:
    """List a project's shelves, newest first.

    Example: depot shelves --project Skyfall --mine
    """
    with connect() as depot:
        of, _ = choose_project(depot, project, HERE)
        branch_id = depot.find_branch(of.id, branch).id if branch else None
        found = list(depot.shelves(of.id, branch_id=branch_id, owner_id=depot.me().id if mine else None))
    lines = table(("ID", "OWNER", "ITEMS", "SINCE", "WHAT"), [_row(one) for one in found]) if found else ["No shelves."]
    show(as_json, {"shelves": found}, lines)


def _row(shelf: Shelf) -> tuple[str, str, str, str, str]:
    first_line = shelf.description.partition("\n")[0]
    return str(shelf.id), shelf.owner, str(shelf.items_count), f"{shelf.created_at:%Y-%m-%d %H:%M:%S %Z}", first_line


def _shelve_line(result: ShelveResult) -> str:
    if result.shelf is None:
        return "Nothing changed: nothing was shelved."
    return (
        f"Shelved {counted(result.shelf.items_count, 'file')} as {result.shelf.id}; "
        f"sent {human_bytes(result.sent_bytes)}."
    )


def _unshelve_lines(result: UnshelveResult) -> Iterator[str]:
    if result.conflicts:
        yield f"{counted(len(result.conflicts), 'conflict')}:"
        yield from shortened([f"  {one.path}: {one.reason}" for one in result.conflicts])
    yield (
        f"Unshelved: {result.written} written, {result.removed} removed, {result.unchanged} right already; "
        f"received {human_bytes(result.fetched_bytes)}."
    )
