"""depot project archive, unarchive, members, permissions, typemap"""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from pydantic import TypeAdapter, ValidationError

from depot_api.cli.credentials import connect
from depot_api.cli.output import AsJson, counted, human_bytes, show, table
from depot_api.cli.places import ProjectOption, choose_project
from depot_api.client.models import Answer, Member, PathRule, ProjectRole, TypemapRule

HERE = Path()
STANDARD_INPUT = "-"
ProjectArgument = Annotated[str, typer.Argument(help="The project, by name or id.", metavar="PROJECT")]
FromFile = Annotated[
    str | None,
    typer.Option("--from", help="Replace all rules by those of this file, written as --json does; - is stdin."),
]
Rule = TypeVar("Rule", bound=Answer)


def archive_project(
    project: ProjectArgument,
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why; kept for good.")],
    as_json: AsJson = False,
) -> None:
    """Archive a project: it can be read as before, and takes no changes.

    Example: depot project archive Skyfall --reason Shipped
    """
    with connect() as depot:
        found = depot.find_project(project)
        kept = depot.archive_project(found.id, reason)
    what = f"{counted(kept.assets, 'asset')}, {counted(kept.versions, 'version')}, {human_bytes(kept.used_bytes)}"
    show(as_json, kept, [f"Archived project {found.name}: {what}."])


def unarchive_project(project: ProjectArgument, as_json: AsJson = False) -> None:
    """Let an archived project take changes again.

    Example: depot project unarchive Skyfall
    """
    with connect() as depot:
        found = depot.unarchive_project(depot.find_project(project).id)
    show(as_json, found, [f"Project {found.name} takes changes again."])


def members(
    project: ProjectOption = None,
    give: Annotated[
        list[str] | None, typer.Option("--set", help="USER=ROLE: add a user, or change the role; can be repeated.")
    ] = None,
    remove: Annotated[list[str] | None, typer.Option("--remove", help="Take a user out; can be repeated.")] = None,
    as_json: AsJson = False,
) -> None:
    """Give users a role in a project or take them out, and list its members.

    Example: depot project members --project Skyfall --set ada=lead --remove ben
    """
    roles = [_user_and_role(one) for one in give or ()]
    with connect() as depot:
        of, _ = choose_project(depot, project, HERE)
        leaving = [_named(depot.members(of.id), username) for username in remove or ()]
        for username, role in roles:
            depot.set_member(of.id, username, role)
        for member in leaving:
            depot.remove_member(of.id, member.user_id)
        found = list(depot.members(of.id))
    show(as_json, {"members": found}, table(("USER", "ROLE"), [(one.username, one.role) for one in found]))


def _user_and_role(text: str) -> tuple[str, ProjectRole]:
    username, _, role = text.rpartition("=")
    if not username or role not in set(ProjectRole):
        raise typer.BadParameter(f"{text!r} is not USER=ROLE with one of the roles {', '.join(ProjectRole)}.")
    return username, ProjectRole(role)


def _named(found: Iterable[Member], username: str) -> Member:
    for member in found:
        if member.username.casefold() == username.casefold():
            return member
    raise typer.BadParameter(f"{username} is no member of the project.")


def permissions(project: ProjectOption = None, source: FromFile = None, as_json: AsJson = False) -> None:
    """Show, or replace, a project's permissions by path: of the rules that match, the last one counts.

    They are for members below manager. A rule is {"pattern", "access", "username" or "role"}; access is none, read,
    write or delete.

    Example: depot project permissions --project Skyfall --from permissions.json
    """
    wanted = _rules_in(source, PathRule)
    with connect() as depot:
        of, _ = choose_project(depot, project, HERE)
        if wanted is not None:
            depot.set_path_permissions(of.id, wanted)
        found = depot.path_permissions(of.id)
    rows = [(one.pattern, one.access, one.username or one.role or "everybody") for one in found]
    show(as_json, {"rules": found}, table(("PATTERN", "ACCESS", "WHO"), rows) if rows else ["No rules."])


def typemap(project: ProjectOption = None, source: FromFile = None, as_json: AsJson = False) -> None:
    """Show, or replace, a project's typemap: of the rules that match, the last one counts.

    A rule is {"pattern", "exclusive", "mergeable", "asset_type", "scope"}; only the pattern has to be there. What is
    exclusive is changed only by who holds its lock.

    Example: depot project typemap --project Skyfall --from typemap.json
    """
    wanted = _rules_in(source, TypemapRule)
    with connect() as depot:
        of, _ = choose_project(depot, project, HERE)
        if wanted is not None:
            depot.set_typemap(of.id, wanted)
        found = depot.typemap(of.id)
    rows = [(one.pattern, _meaning(one), one.asset_type, one.scope) for one in found]
    show(as_json, {"rules": found}, table(("PATTERN", "IS", "TYPE", "SCOPE"), rows) if rows else ["No rules."])


def _meaning(rule: TypemapRule) -> str:
    return " ".join(word for word, holds in (("exclusive", rule.exclusive), ("mergeable", rule.mergeable)) if holds)


def _rules_in(source: str | None, kind: type[Rule]) -> Sequence[Rule] | None:
    """Raises BadParameter for a file that is not there, or holds something else."""
    if source is None:
        return None
    try:
        text = sys.stdin.read() if source == STANDARD_INPUT else Path(source).read_text(encoding="utf-8")
        return TypeAdapter(list[kind]).validate_python(json.loads(text)["rules"])  # type: ignore[valid-type]
    except OSError as error:
        raise typer.BadParameter(f"{source} cannot be read: {error.strerror}.") from None
    except (ValueError, TypeError, KeyError, ValidationError) as error:
        raise typer.BadParameter(f'{source} is not {{"rules": [...]}}: {error}') from None
