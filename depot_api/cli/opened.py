"""depot open, edit, add, delete, move, revert"""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from depot_api.cli.credentials import connect
from depot_api.cli.output import AsJson, ExitCode, counted, human_bytes, note, progress_bars, shortened, show
from depot_api.cli.places import paths_in_workspace
from depot_api.cli.trees import opened_line
from depot_api.client import opened
from depot_api.client.opened import OpenedFile, RevertResult

Paths = Annotated[list[Path], typer.Argument(metavar="PATH", help="Files of a workspace, or directories of them.")]
OptionalPaths = Annotated[
    list[Path] | None, typer.Argument(metavar="PATH", help="Files or directories. Default: the whole workspace.")
]


def open_changed(
    paths: OptionalPaths = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Only show what would be opened.")] = False,
    as_json: AsJson = False,
) -> None:
    """Find what was added, edited and deleted in a workspace, and open it for that.

    Example: depot open Content/Hero
    """
    root, named = paths_in_workspace(paths or [])
    with progress_bars() as progress:
        found = opened.open_changed(root, named, dry_run=dry_run, progress=progress)
    _show_opened(as_json, found, "to open" if dry_run else "opened")


def edit(paths: Paths, as_json: AsJson = False) -> None:
    """Open files that came from the depot for edit.

    Example: depot edit Content/Hero/hero.uasset
    """
    root, named = paths_in_workspace(paths)
    _show_opened(as_json, opened.open_for_edit(root, named), "opened")


def add(paths: Paths, as_json: AsJson = False) -> None:
    """Open new files for add.

    Example: depot add Content/Hero/cape.uasset
    """
    root, named = paths_in_workspace(paths)
    _show_opened(as_json, opened.open_for_add(root, named), "opened")


def delete(paths: Paths, as_json: AsJson = False) -> None:
    """Delete files here, and open them for delete. Files that you changed are refused.

    Example: depot delete Content/Hero/old.uasset
    """
    root, named = paths_in_workspace(paths)
    with progress_bars() as progress:
        deleted = opened.open_for_delete(root, named, progress)
    _show_opened(as_json, deleted, "opened")


def move(
    path: Annotated[Path, typer.Argument(help="A file of a workspace, or a directory.", metavar="PATH")],
    new_path: Annotated[Path, typer.Argument(help="Its new path, where nothing is yet.", metavar="NEW_PATH")],
    as_json: AsJson = False,
) -> None:
    """Move or rename files here, and open them for that: their history goes along.

    A file that you renamed yourself is found as moved too, as long as its content is the same.

    Example: depot move Content/Hero/cape.uasset Content/Villain/cape.uasset
    """
    root, (old, new) = paths_in_workspace([path, new_path])
    moved = opened.move(root, old, new)
    lines = [
        f"{counted(len(moved), 'file')} moved:",
        *shortened([f"  {one.moved_from} -> {one.path}" for one in moved]),
    ]
    show(as_json, {"files": [asdict(one) for one in moved]}, lines)


def revert(
    paths: OptionalPaths = None,
    unchanged: Annotated[bool, typer.Option("--unchanged", "-a", help="Only files that did not change.")] = False,
    as_json: AsJson = False,
) -> None:
    """Give opened files up: their changes are lost, and the version that you had is put back.

    A file opened for add stays where it is. With -a no content is lost: only files that are as they came
    from the depot are not opened any more.

    Example: depot revert Content/Hero/hero.uasset
    """
    if not paths and not unchanged:
        raise typer.BadParameter("Name the files to revert; `depot revert .` in the workspace's root is all of them.")
    root, named = paths_in_workspace(paths or [])
    with connect() as depot, progress_bars() as progress:
        result = opened.revert(depot, root, named, only_unchanged=unchanged, progress=progress)
    show(as_json, asdict(result), _revert_lines(result))
    if result.changed:
        note("Files that changed while the command was running were left alone. Run it again.")
        raise typer.Exit(ExitCode.PROBLEM)


def _show_opened(as_json: bool, files: list[OpenedFile], what: str) -> None:
    lines = [f"{counted(len(files), 'file')} {what}:", *shortened([opened_line(one) for one in files])]
    show(
        as_json, {"files": [asdict(one) for one in files]}, lines if files else ["Nothing changed that is not opened."]
    )


def _revert_lines(result: RevertResult) -> Iterator[str]:
    yield from shortened([opened_line(one) for one in result.reverted])
    yield from shortened([f"  left    {path}" for path in result.changed])
    yield (
        f"Reverted {counted(len(result.reverted), 'file')}; {result.restored} restored, "
        f"received {human_bytes(result.fetched_bytes)}."
    )
