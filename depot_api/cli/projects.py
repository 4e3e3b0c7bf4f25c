"""depot project …, depot branch …, depot log"""

from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from depot_api.cli.credentials import connect
from depot_api.cli.output import AsJson, show, table
from depot_api.cli.places import BranchOption, ProjectOption, choose_project
from depot_api.client.models import Branch, Changelist, ChangelistStatus, Project, ProjectRole

projects = typer.Typer(no_args_is_help=True, help="Projects: create one, list yours, say who may do what.")
branches = typer.Typer(no_args_is_help=True, help="Branches of a project: create one, list them, protect one.")
HERE = Path()


@projects.command("create")
def create_project(
    name: Annotated[str, typer.Argument(help="The project's name.")],
    description: Annotated[str | None, typer.Option("--description", "-d", help="What it is.")] = None,
    as_json: AsJson = False,
) -> None:
    """Create a project; it begins with an empty branch.

    Example: depot project create Skyfall
    """
    with connect() as depot:
        project = depot.create_project(name, description)
    show(as_json, project, [f"Created project {project.name} ({project.id})."])


@projects.command("list")
def list_projects(as_json: AsJson = False) -> None:
    """List the projects that you may see.

    Example: depot project list
    """
    with connect() as depot:
        found = list(depot.projects())
    rows = [(one.name, one.my_role or "", one.status, str(one.id)) for one in found]
    show(as_json, {"projects": found}, table(("NAME", "YOUR ROLE", "STATUS", "ID"), rows) if rows else ["No projects."])


@branches.command("create")
def create_branch(
    name: Annotated[str, typer.Argument(help="The branch's name.")],
    project: ProjectOption = None,
    parent: Annotated[str | None, typer.Option(help="Branch to begin from. Default: the project's.")] = None,
    at: Annotated[int | None, typer.Option(help="Changelist of the parent to begin from. Default: its newest.")] = None,
    description: Annotated[str | None, typer.Option("--description", "-d", help="What it is for.")] = None,
    as_json: AsJson = False,
) -> None:
    """Create a branch; this copies nothing.

    Example: depot branch create release-1 --project Skyfall --parent main
    """
    with connect() as depot:
        of, _ = choose_project(depot, project, HERE)
        parent_id = depot.find_branch(of.id, parent).id if parent else of.default_branch_id
        branch = depot.create_branch(of.id, name, parent_id=parent_id, parent_at=at, description=description)
    show(as_json, branch, [f"Created branch {branch.name} of {of.name} as of changelist {branch.head_no}."])


@branches.command("list")
def list_branches(project: ProjectOption = None, as_json: AsJson = False) -> None:
    """List a project's branches.

    Example: depot branch list --project Skyfall
    """
    with connect() as depot:
        of, _ = choose_project(depot, project, HERE)
        found = list(depot.branches(of.id))
    rows = [_branch_row(one, found, of) for one in found]
    show(as_json, {"branches": found}, table(("NAME", "NEWEST", "BEGAN FROM", "ID"), rows))


@branches.command("protect")
def protect_branch(
    name: Annotated[str, typer.Argument(help="The branch, by name or id.")],
    project: ProjectOption = None,
    submit_role: Annotated[ProjectRole | None, typer.Option(help="Who may submit: this role or above.")] = None,
    review: Annotated[bool | None, typer.Option(help="Whether a submit needs an approval.")] = None,
    validation: Annotated[bool | None, typer.Option(help="Whether each item must have passed validation.")] = None,
    description: Annotated[str | None, typer.Option("--description", "-d", help="What it is for.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say who may submit to a branch, and what must pass before. What is left out stays as it is.

    Example: depot branch protect release-1 --project Skyfall --submit-role lead --review
    """
    wanted = {
        "submit_role": submit_role,
        "require_review": review,
        "require_validation": validation,
        "description": description,
    }
    changes = {what: value for what, value in wanted.items() if value is not None}
    if not changes:
        raise typer.BadParameter("Say what to change: --submit-role, --review, --validation or --description.")
    with connect() as depot:
        of, _ = choose_project(depot, project, HERE)
        branch = depot.update_branch(depot.find_branch(of.id, name).id, **changes)
    review_line = "an approval" if branch.require_review else "no approval"
    validation_line = "passed validations" if branch.require_validation else "no validation"
    line = f"Submitting to {branch.name} takes the role {branch.submit_role}, {review_line} and {validation_line}."
    show(as_json, branch, [line])


def log(
    project: ProjectOption = None,
    branch: BranchOption = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List submitted changelists, newest first.

    Example: depot log --project Skyfall --branch main --limit 5
    """
    with connect() as depot:
        of, target = choose_project(depot, project, HERE)
        branch_id = depot.find_branch(of.id, branch).id if branch else None
        if project is None and branch is None and target is not None:
            branch_id = target.branch_id
        of_branch = depot.changelists(of.id, branch_id=branch_id, status=ChangelistStatus.SUBMITTED)
        found = list(islice(of_branch, limit))
    show(as_json, {"changelists": found}, map(_log_line, found) if found else ["Nothing was submitted yet."])


def _branch_row(branch: Branch, all_branches: list[Branch], project: Project) -> tuple[str, str, str, str]:
    names = {one.id: one.name for one in all_branches}
    began = f"{names.get(branch.parent_id, branch.parent_id)}@{branch.parent_at}" if branch.parent_id else ""
    mark = " (default)" if branch.id == project.default_branch_id else ""
    return branch.name + mark, str(branch.head_no), began, str(branch.id)


def _log_line(changelist: Changelist) -> str:
    when = f"{changelist.submitted_at or changelist.created_at:%Y-%m-%d %H:%M:%S %Z}"
    first_line = changelist.description.partition("\n")[0]
    return f"{changelist.number:>6}  {when}  {changelist.items_count:>6} items  {first_line}"
