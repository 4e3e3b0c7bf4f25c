"""Which directory, project and branch a command is about: as named, else as the workspace says."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from depot_api.client.depot import DepotClient
from depot_api.client.files import STATE_DIRECTORY
from depot_api.client.models import Branch, Changelist, Project
from depot_api.client.workspace import Target, find_root, read_target

ProjectOption = Annotated[
    str | None, typer.Option("--project", "-p", help="Project, by name or id. Default: the workspace's.")
]
BranchOption = Annotated[
    str | None,
    typer.Option("--branch", "-b", help="Branch, by name or id. Default: the workspace's, else the project's."),
]


def whole_workspace(directory: Path) -> Path:
    """The directory, resolved. Raises BadParameter when it is a part of a workspace: its paths would be wrong."""
    root = find_root(directory)
    if root is not None and root != directory.resolve():
        raise typer.BadParameter(f"{directory} is a part of the workspace {root}. Name that directory.")
    return directory.resolve()


def workspace_around(directory: Path) -> Path:
    """The workspace that a directory is in, else the directory."""
    return find_root(directory) or directory.resolve()


def paths_in_workspace(paths: Sequence[Path]) -> tuple[Path, list[str]]:
    """The workspace that the paths are in (around the current directory without any), and their depot paths.

    The workspace itself is ''. Raises BadParameter when they are not all in one workspace.
    """
    places = [_unfollowed(path) for path in paths] or [Path.cwd()]
    first = places[0]
    root = find_root(first if first.is_dir() and not first.is_symlink() else first.parent)
    outside = next((place for place in places if root is None or not place.is_relative_to(root)), None)
    if root is None or outside is not None:
        raise typer.BadParameter(f"{outside} is not in {root or 'a workspace'}. Run `depot sync` to make one.")
    inside = [place.relative_to(root) for place in places]
    if any(STATE_DIRECTORY in path.parts for path in inside):
        raise typer.BadParameter(f"{STATE_DIRECTORY} holds the workspace's own records.")
    return root, ["" if path == Path() else path.as_posix() for path in inside] if paths else []


def _unfollowed(path: Path) -> Path:
    """The absolute path, where the last part may be a symbolic link."""
    if path.name in ("", ".."):
        return path.resolve()
    return path.parent.resolve() / path.name


def choose_project(depot: DepotClient, project: str | None, directory: Path) -> tuple[Project, Target | None]:
    """The project, and the workspace's target when it is of this project. Raises BadParameter without any."""
    target = read_target(workspace_around(directory))
    if project is None:
        if target is None:
            raise typer.BadParameter(f"{directory} is not a workspace: name a project with --project.")
        return depot.project(target.project_id), target
    found = depot.find_project(project)
    return found, target if target is not None and target.project_id == found.id else None


def choose_changelist(depot: DepotClient, changelist: str, project: str | None, directory: Path) -> Changelist:
    """A changelist by number, which takes a project, or by id. Raises BadParameter, and ProblemError 404."""
    if changelist.isdecimal() and changelist.isascii():
        of, _ = choose_project(depot, project, directory)
        return depot.find_changelist(of.id, int(changelist))
    try:
        return depot.changelist(UUID(changelist))
    except ValueError:
        raise typer.BadParameter(f"{changelist!r} is neither the number nor the id of a changelist.") from None


def choose_branch(
    depot: DepotClient, project: str | None, branch: str | None, directory: Path
) -> tuple[Project, Branch]:
    """The project and the branch. Raises BadParameter, and ProblemError 404 for names that are not there."""
    found, target = choose_project(depot, project, directory)
    if branch is not None:
        return found, depot.find_branch(found.id, branch)
    default_id = target.branch_id if target else found.default_branch_id
    if default_id is None:
        raise typer.BadParameter(f"Project {found.name} has no default branch: name one with --branch.")
    return found, depot.branch(default_id)
