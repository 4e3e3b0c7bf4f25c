"""depot user …"""

from typing import Annotated

import typer

from depot_api.cli.account import ask_password
from depot_api.cli.credentials import connect
from depot_api.cli.output import AsJson, show, table
from depot_api.client.models import StudioRole

users = typer.Typer(no_args_is_help=True, help="Users, for studio admins: create, list, deactivate, reset passwords.")
UserArgument = Annotated[str, typer.Argument(help="The user, by name or id.", metavar="USER")]


@users.command("create")
def create_user(
    username: Annotated[str, typer.Argument(help="The name to sign in with.")],
    display_name: Annotated[str, typer.Option("--display-name", "-n", help="The name that others see.")] = "",
    role: Annotated[StudioRole, typer.Option(help="Studio-wide role; editors create projects.")] = StudioRole.VIEWER,
    as_json: AsJson = False,
) -> None:
    """Create a user.

    The password is asked for on a terminal, else it is the first line of standard input.

    Example: depot user create ada --display-name "Ada Lovelace" --role editor
    """
    password = ask_password(f"Password for {username}")
    with connect() as depot:
        user = depot.create_user(username, password, display_name=display_name, studio_role=role)
    show(as_json, user, [f"Created user {user.username} ({user.id}) with the role {user.studio_role}."])


@users.command("list")
def list_users(
    name: Annotated[str | None, typer.Option(help="Only those with this in their names.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the users.

    Example: depot user list --name ada
    """
    with connect() as depot:
        found = list(depot.users(name))
    rows = [
        (one.username, one.display_name, one.studio_role, "" if one.is_active else "deactivated", str(one.id))
        for one in found
    ]
    show(as_json, {"users": found}, table(("USERNAME", "NAME", "ROLE", "STATE", "ID"), rows) if rows else ["No users."])


@users.command("deactivate")
def deactivate_user(user: UserArgument, as_json: AsJson = False) -> None:
    """Deactivate a user, who is out at once with every session and token. What they did stays theirs.

    Example: depot user deactivate ada
    """
    with connect() as depot:
        changed = depot.update_user(depot.find_user(user).id, is_active=False)
    show(as_json, changed, [f"Deactivated user {changed.username}."])


@users.command("reset-password")
def reset_password(user: UserArgument, as_json: AsJson = False) -> None:
    """Give a user a new password; the user's sessions and tokens end.

    It is asked for on a terminal, else it is the first line of standard input.

    Example: depot user reset-password ada
    """
    with connect() as depot:
        found = depot.find_user(user)
        depot.reset_password(found.id, ask_password(f"New password for {found.username}"))
    show(as_json, found, [f"Reset the password of {found.username}."])
