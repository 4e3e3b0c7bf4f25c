"""depot search, tag, label …"""

import json
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from depot_api.cli.credentials import connect
from depot_api.cli.output import AsJson, human_bytes, show, table
from depot_api.cli.places import BranchOption, ProjectOption, choose_branch, choose_project
from depot_api.client.models import FoundAsset

labels = typer.Typer(no_args_is_help=True, help="Labels: names for a branch as of a changelist.")
HERE = Path()


def search(
    name: Annotated[str | None, typer.Argument(help="Part of the file's name, 3 characters or more.")] = None,
    project: ProjectOption = None,
    branch: BranchOption = None,
    prefix: Annotated[str | None, typer.Option(help="Paths that begin so.")] = None,
    asset_type: Annotated[str | None, typer.Option("--type", help="Assets of exactly this type.")] = None,
    tags: Annotated[list[str] | None, typer.Option("--tag", help="Assets with this tag; can be repeated.")] = None,
    metadata: Annotated[str | None, typer.Option(help="A JSON object that the metadata contains.")] = None,
    author: Annotated[str | None, typer.Option(help="Assets that this user submitted a version of.")] = None,
    since: Annotated[datetime | None, typer.Option(help="Assets changed since, in local time.")] = None,
    deleted: Annotated[bool, typer.Option("--deleted", help="What was deleted, instead of what is there.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Find assets of a branch; what is given must all match.

    Example: depot search hero --project Skyfall --type mesh --tag approved
    """
    with connect() as depot:
        of, on_branch = choose_branch(depot, project, branch, HERE)
        matches = depot.search(
            of.id,
            branch_id=on_branch.id,
            prefix=prefix,
            name=name,
            asset_type=asset_type,
            tags=tags or (),
            metadata=_json_object(metadata),
            author=author,
            changed_since=since.astimezone() if since else None,
            deleted=deleted,
        )
        found = list(islice(matches, limit))
    header = ("PATH", "VERSION", "SIZE", "TYPE", "TAGS")
    show(as_json, {"assets": found}, table(header, [_asset_row(one) for one in found]) if found else ["Nothing found."])


def _json_object(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        document = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"--metadata is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise typer.BadParameter("--metadata takes an object, as in --metadata '{\"lod\": 2}'")
    return document


def _asset_row(asset: FoundAsset) -> tuple[str, str, str, str, str]:
    version = f"#{asset.version}" if asset.version else "deleted"
    size = human_bytes(asset.size_bytes) if asset.size_bytes is not None else ""
    return asset.path, version, size, asset.asset_type, " ".join(asset.tags)


def tag(
    path: Annotated[str, typer.Argument(help="The asset's path in the project.")],
    tags: Annotated[list[str], typer.Argument(help="Tags to give it.")],
    project: ProjectOption = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take these tags away instead.")] = False,
    as_json: AsJson = False,
) -> None:
    """Tag an asset.

    Example: depot tag Content/Hero/hero.uasset approved hero --project Skyfall
    """
    with connect() as depot:
        of, _ = choose_project(depot, project, HERE)
        asset = depot.find_asset(of.id, path)
        asset = depot.update_asset(asset.id, **{"remove_tags" if remove else "add_tags": tags})
    show(as_json, asset, [f"{asset.path}: {' '.join(asset.tags) or 'no tags'}"])


@labels.command("set")
def set_label(
    name: Annotated[str, typer.Argument(help="The label's name.")],
    project: ProjectOption = None,
    branch: BranchOption = None,
    at: Annotated[int | None, typer.Option(help="Changelist. Default: the branch's newest.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a label, or move it.

    Example: depot label set rc-1 --project Skyfall --branch main --at 1200
    """
    with connect() as depot:
        of, on_branch = choose_branch(depot, project, branch, HERE)
        label = depot.set_label(of.id, name, on_branch.id, at)
    show(as_json, label, [f"{label.name} is {on_branch.name}@{label.at}."])


@labels.command("list")
def list_labels(project: ProjectOption = None, as_json: AsJson = False) -> None:
    """List a project's labels.

    Example: depot label list --project Skyfall
    """
    with connect() as depot:
        of, _ = choose_project(depot, project, HERE)
        found = list(depot.labels(of.id))
        names = {branch.id: branch.name for branch in depot.branches(of.id)} if found else {}
    rows = [(one.name, f"{names.get(one.branch_id, one.branch_id)}@{one.at}") for one in found]
    show(as_json, {"labels": found}, table(("NAME", "POINT"), rows) if rows else ["No labels."])


@labels.command("delete")
def delete_label(
    name: Annotated[str, typer.Argument(help="The label's name.")],
    project: ProjectOption = None,
    as_json: AsJson = False,
) -> None:
    """Delete a label; what it named stays.

    Example: depot label delete rc-1 --project Skyfall
    """
    with connect() as depot:
        of, _ = choose_project(depot, project, HERE)
        depot.delete_label(of.id, name)
    show(as_json, {"deleted": name}, [f"Deleted the label {name}."])
