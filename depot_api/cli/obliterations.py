"""depot obliterate, obliterations"""

from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from depot_api.cli.credentials import connect
from depot_api.cli.output import AsJson, counted, human_bytes, show, table
from depot_api.cli.places import ProjectOption, choose_project
from depot_api.client.models import Obliteration, ObliterationPlan

HERE = Path()
WILDCARD = "*"


def obliterate(
    path: Annotated[str, typer.Argument(help="An asset's path in the project, or a pattern with *.")],
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why; kept for good.")],
    project: ProjectOption = None,
    version: Annotated[
        list[int] | None, typer.Option("--version", help="Only this version of the asset; can be repeated.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do it; without this only what would go is shown.")] = False,
    as_json: AsJson = False,
) -> None:
    """Take content out of history for good, as a studio admin. Without --yes nothing is done.

    Nobody can read it from then on; its bytes go when the time of grace is over and it is completed. What a branch
    shows is refused: delete or replace it there first.

    Example: depot obliterate Content/Key.pem --reason "A private key" --project Skyfall --yes
    """
    if WILDCARD in path and version:
        raise typer.BadParameter("Versions belong to one asset: name it without a pattern.")
    with connect() as depot:
        of, _ = choose_project(depot, project, HERE)
        if WILDCARD in path:
            plan = depot.obliterate(of.id, reason, pattern=path, dry_run=not yes)
        else:
            asset = depot.find_asset(of.id, path)
            plan = depot.obliterate(of.id, reason, asset_id=asset.id, versions=version or (), dry_run=not yes)
    show(as_json, plan, _plan_lines(plan))


def obliterations(
    project: ProjectOption = None,
    cancel: Annotated[
        UUID | None, typer.Option("--cancel", help="Take this one back within its time of grace.")
    ] = None,
    complete: Annotated[UUID | None, typer.Option("--complete", help="Remove the bytes of this one, for good.")] = None,
    as_json: AsJson = False,
) -> None:
    """List a project's obliterations, newest first; or cancel or complete one.

    Example: depot obliterations --project Skyfall
    """
    if cancel is not None and complete is not None:
        raise typer.BadParameter("--cancel and --complete are two different things: give one of them.")
    with connect() as depot:
        if cancel is not None:
            found = [depot.cancel_obliteration(cancel)]
        elif complete is not None:
            found = [depot.complete_obliteration(complete)]
        else:
            of, _ = choose_project(depot, project, HERE)
            found = list(depot.obliterations(of.id))
    header = ("OBLITERATION", "STATUS", "VERSIONS", "DUE", "WHY")
    show(as_json, {"obliterations": found}, table(header, list(map(_row, found))) if found else ["No obliterations."])


def _plan_lines(plan: ObliterationPlan) -> list[str]:
    what = f"{counted(plan.versions, 'version')}; {human_bytes(plan.removed_bytes)} of content that nothing else has"
    if plan.obliteration_id is None:
        return [f"Would take {what}. With --yes it is done."]
    return [f"Took {what}.", f"Its bytes go with `depot obliterations --complete {plan.obliteration_id}`."]


def _row(one: Obliteration) -> tuple[str, str, str, str, str]:
    due = f"{one.due_at.astimezone():%Y-%m-%d %H:%M}"
    return str(one.id), one.status, str(one.versions), due, one.reason.partition("\n")[0]
