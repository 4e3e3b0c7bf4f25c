"""depot login, whoami"""

import getpass
import sys
from typing import Annotated

import typer

from depot_api.cli.credentials import Credentials, connect, save
from depot_api.cli.output import AsJson, show
from depot_api.client.depot import DepotClient


def login(
    url: Annotated[str, typer.Argument(help="The depot's address.", metavar="URL")],
    username: Annotated[str | None, typer.Option("--username", "-u", help="Default: asked for.")] = None,
    as_json: AsJson = False,
) -> None:
    """Sign in to a depot, for this and later commands.

    The password is asked for on a terminal, else it is the first line of standard input.

    Example: depot login http://127.0.0.1:8000 --username admin
    """
    name = username or _ask_username()
    password = ask_password(f"Password of {name}")
    with DepotClient(url) as depot:
        token = depot.sign_in(name, password)
        user = depot.me()
        path = save(Credentials(depot.url, user.username, token.access_token))
    document = {"url": depot.url, "username": user.username, "expires_in": token.expires_in, "kept_in": str(path)}
    show(as_json, document, [f"Signed in to {depot.url} as {user.username}. The token is kept in {path}."])


def whoami(as_json: AsJson = False) -> None:
    """Show which depot commands go to, and as whom.

    Example: depot whoami
    """
    with connect() as depot:
        user = depot.me()
    document = user.model_dump(mode="json") | {"url": depot.url}
    show(as_json, document, [f"{user.username} ({user.studio_role}) at {depot.url}"])


def ask_password(what: str) -> str:
    """From a terminal without showing it, else the first line of standard input."""
    return getpass.getpass(f"{what}: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")


def _ask_username() -> str:
    if not sys.stdin.isatty():
        raise typer.BadParameter("Name the user with --username: there is no terminal to ask on.")
    return str(typer.prompt("Username", err=True))
