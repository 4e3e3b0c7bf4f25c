"""depot lock, unlock, locks"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from depot_api.cli.credentials import connect
from depot_api.cli.output import AsJson, counted, show, table
from depot_api.cli.places import ProjectOption, choose_project, workspace_around
from depot_api.client.depot import LOCKS_LIMIT, DepotClient
from depot_api.client.models import Lock
from depot_api.client.workspace import open_existing
from depot_api.paths import path_key

HERE = Path()
SECONDS_PER_HOUR = 3600
MAX_LEASE_HOURS = 168
Files = Annotated[list[Path], typer.Argument(help="Files of a workspace; with --project, paths in the project.")]


def lock(
    paths: Files,
    project: ProjectOption = None,
    hours: Annotated[
        float | None, typer.Option(min=0.01, max=MAX_LEASE_HOURS, help="For how long. Default: a working day, 8.")
    ] = None,
    break_others: Annotated[bool, typer.Option("--break", help="Break the locks that others hold on them.")] = False,
    reason: Annotated[str | None, typer.Option(help="Why they are broken; kept for good.")] = None,
    as_json: AsJson = False,
) -> None:
    """Lock files, all or none: until you submit or unlock them, nobody else can submit a change of them.

    Refused when a newer version than the workspace's is on any branch. Yours already are renewed.
    --break takes the role lead or above, and locks nothing.

    Example: depot lock Content/Hero/hero.uasset --hours 4
    """
    if break_others != (reason is not None):
        raise typer.BadParameter("--break and --reason go together.")
    if break_others:
        _break(paths, project, reason or "", as_json)
        return
    if project is not None:
        raise typer.BadParameter("Files are locked in a workspace, which knows the versions; --project is for --break.")
    if len(paths) > LOCKS_LIMIT:
        raise typer.BadParameter(f"At most {LOCKS_LIMIT} files are locked at once; these are {len(paths)}.")
    root = workspace_around(paths[0].absolute().parent)
    names = [_path_in(root, path) for path in paths]
    with open_existing(root) as (workspace, target):
        have = workspace.have()
    bases = {name: have[name].version if name in have else None for name in names}
    with connect() as depot:
        lease_seconds = None if hours is None else round(hours * SECONDS_PER_HOUR)
        held = depot.lock(target.project_id, target.branch_id, bases, lease_seconds)
    with open_existing(root) as (workspace, _):
        workspace.remember_locks({one.path: one.fencing_number for one in held})
    show(as_json, {"locks": held}, [f"Locked {one.path} until {_local(one.expires_at)}." for one in held])


def _break(paths: Sequence[Path], project: str | None, reason: str, as_json: bool) -> None:
    with connect() as depot:
        broken = list(_named_locks(depot, paths, project))
        for one in broken:
            depot.break_lock(one.id, reason)
    show(as_json, {"broken": broken}, [f"Broke the lock of {one.holder} on {one.path}." for one in broken])


def unlock(paths: Files, project: ProjectOption = None, as_json: AsJson = False) -> None:
    """Release your locks.

    Example: depot unlock Content/Hero/hero.uasset
    """
    with connect() as depot:
        released = list(_named_locks(depot, paths, project))
        for one in released:
            depot.release_lock(one.id)
    if project is None:
        with open_existing(workspace_around(paths[0].absolute().parent)) as (workspace, _):
            workspace.forget_locks(one.path for one in released)
    show(as_json, {"released": released}, [f"Unlocked {one.path}." for one in released])


def locks(
    project: ProjectOption = None,
    prefix: Annotated[str | None, typer.Option(help="On paths that begin so.")] = None,
    holder: Annotated[str | None, typer.Option(help="Held by this user.")] = None,
    mine: Annotated[bool, typer.Option("--mine", help="Held by you.")] = False,
    expired: Annotated[
        bool, typer.Option("--expired", help="Those whose time has ended, instead of live ones.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List a project's locks.

    Example: depot locks --project Skyfall --prefix Content/Hero/
    """
    with connect() as depot:
        of, _ = choose_project(depot, project, HERE)
        of_user = depot.me().username if mine else holder
        found = list(depot.locks(of.id, prefix=prefix, holder=of_user, expired=expired))
    rows = [(one.path, one.holder, _local(one.acquired_at), _local(one.expires_at)) for one in found]
    lines = table(("PATH", "HOLDER", "SINCE", "UNTIL"), rows) if rows else ["No locks."]
    show(as_json, {"locks": found}, [*lines, counted(len(rows), "lock") + "."] if rows else lines)


def _named_locks(depot: DepotClient, paths: Sequence[Path], project: str | None) -> Iterator[Lock]:
    """The lock on each path. Raises BadParameter, before anything has changed, when one has none."""
    project_id, names = _project_and_names(depot, paths, project)
    found = {path_key(name): next(depot.locks(project_id, path=name), None) for name in names}
    if free := [name for name in names if found[path_key(name)] is None]:
        raise typer.BadParameter(f"{free[0]} is not locked; `depot locks` lists what is.")
    return (one for one in found.values() if one is not None)


def _project_and_names(depot: DepotClient, paths: Sequence[Path], project: str | None) -> tuple[UUID, list[str]]:
    if project is not None:
        return depot.find_project(project).id, [path.as_posix() for path in paths]
    root = workspace_around(paths[0].absolute().parent)
    names = [_path_in(root, path) for path in paths]
    with open_existing(root) as (_, target):
        return target.project_id, names


def _path_in(root: Path, path: Path) -> str:
    """What a file of the workspace is called in the project; the file need not be there."""
    whole = path.parent.resolve() / path.name
    if not whole.is_relative_to(root):
        raise typer.BadParameter(f"{path} is not in the workspace {root}. Name files of one workspace.")
    if whole.is_dir():
        raise typer.BadParameter(f"{path} is a directory. Name the files in it.")
    return whole.relative_to(root).as_posix()


def _local(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M}"
