"""depot diff"""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from depot_api.cli.credentials import connect
from depot_api.cli.output import AsJson, counted, human_bytes, progress_bars, show
from depot_api.cli.places import ProjectOption, choose_project, paths_in_workspace, workspace_around
from depot_api.client.depot import DepotClient
from depot_api.client.diff import FileDifference, LocalFile, local_differences
from depot_api.client.models import Branch, DiffRow, Version
from depot_api.client.problems import ProblemError
from depot_api.client.workspace import read_target

HERE = Path()
SIGNS = {"added": "+", "removed": "-", "changed": "~"}
NOT_FOUND = 404
SHORT_HASH = 12  # characters: enough to tell two versions apart
TWO_SIDES = 2


def diff(
    what: Annotated[
        list[str] | None,
        typer.Argument(metavar="PATH|BRANCH", help="Files of a workspace, or two points of branches."),
    ] = None,
    project: ProjectOption = None,
    as_json: AsJson = False,
) -> None:
    """Show what you changed in a workspace, or what changes from one branch to another.

    With --project, the two arguments are branches, as main, main@1200 or main@rc-1 (changelist, label). In a
    workspace, two arguments that both name a branch are these, too. All others are files and directories of a
    workspace (none: all of it), compared with the version that the workspace has, text up to 1 MiB line by
    line. Write ./main for a file that is named like a branch.

    Example: depot diff main@rc-1 main --project Skyfall
    """
    named = what or []
    with connect() as depot:
        if branches := _two_branches(depot, project, named):
            _show_branches(depot, named, branches, as_json)
        else:
            _show_local(depot, named, as_json)


def _two_branches(depot: DepotClient, project: str | None, named: list[str]) -> tuple[Branch, Branch] | None:
    """The branches that the arguments name; None when they are paths. Raises BadParameter, ProblemError."""
    if project is None and (len(named) != TWO_SIDES or any(one.startswith((".", "/")) for one in named)):
        return None
    if len(named) != TWO_SIDES:
        raise typer.BadParameter("With --project two branches are compared: name both.")
    if project is None and read_target(workspace_around(HERE)) is None:
        return None
    of, _ = choose_project(depot, project, HERE)
    left, right = (_branch_and_point(one)[0] for one in named)
    try:
        return depot.find_branch(of.id, left), depot.find_branch(of.id, right)
    except ProblemError as problem:
        if project is None and problem.status == NOT_FOUND:
            return None
        raise


def _branch_and_point(text: str) -> tuple[str, int | str | None]:
    branch, _, point = text.partition("@")
    return branch, int(point) if point.isdecimal() else point or None


def _show_branches(depot: DepotClient, named: list[str], branches: tuple[Branch, Branch], as_json: bool) -> None:
    (left, right), (left_branch, right_branch) = named, branches
    from_point, to_point = (_branch_and_point(one)[1] for one in named)
    rows = list(depot.diff(right_branch.id, against=left_branch.id, from_point=from_point, to_point=to_point))
    summary = f"{counted(len(rows), 'difference')} from {left} to {right}."
    show(as_json, {"left": left, "right": right, "differences": rows}, [*map(_branch_line, rows), summary])


def _branch_line(row: DiffRow) -> str:
    return f"{SIGNS.get(row.change, '?')} {row.path}"


def _show_local(depot: DepotClient, named: list[str], as_json: bool) -> None:
    root, paths = paths_in_workspace([Path(one) for one in named])
    with progress_bars() as progress:
        found = list(local_differences(depot, root, paths, progress))
    document = {"workspace": str(root), "differences": [asdict(one) for one in found]}
    summary = f"{counted(len(found), 'file')} changed."
    show(as_json, document, [*(line for one in found for line in _local_lines(one)), summary])


def _local_lines(one: FileDifference) -> Iterator[str]:
    before = f"#{one.had.version} {_side(one.had)}" if one.had else "new"
    after = _side(one.now) if one.now else "deleted"
    yield f"{one.action:<6}  {one.path}: {before} -> {after}"
    if one.text:
        yield one.text.removesuffix("\n")


def _side(side: Version | LocalFile) -> str:
    return f"{human_bytes(side.size_bytes)} {side.sha256[:SHORT_HASH]}"
