"""depot token …"""

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

import typer

from depot_api.cli.credentials import connect
from depot_api.cli.output import AsJson, note, show, table
from depot_api.client.models import ApiToken, TokenScope

tokens = typer.Typer(no_args_is_help=True, help="API tokens for scripts and services: create, list, revoke.")
UserOption = Annotated[
    str | None, typer.Option("--user", "-u", help="Whose, by name or id; for admins. Default: yours.")
]


@tokens.command("create")
def create_token(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    scope: Annotated[TokenScope, typer.Option(help="What it may do.")] = TokenScope.WRITE,
    days: Annotated[int, typer.Option(min=1, help="How long it works.")] = 90,
    as_json: AsJson = False,
) -> None:
    """Create an API token of yours, and print it this once.

    Only the token goes to standard output, so a script can keep it.

    Example: depot token create nightly-build --scope read --days 30
    """
    with connect() as depot:
        made = depot.create_token(name, scope, days)
    note(f"Created token {made.name} ({made.id}) with the scope {made.scope}, until {made.expires_at:%Y-%m-%d}.")
    note("Keep it now: the depot cannot show it again.")
    show(as_json, made, [made.token])


@tokens.command("list")
def list_tokens(user: UserOption = None, as_json: AsJson = False) -> None:
    """List API tokens, without what is secret about them.

    Example: depot token list
    """
    with connect() as depot:
        found = list(depot.tokens(depot.find_user(user).id if user else None))
    rows = [(one.name, one.scope, _state(one), str(one.id)) for one in found]
    show(as_json, {"tokens": found}, table(("NAME", "SCOPE", "STATE", "ID"), rows) if rows else ["No tokens."])


@tokens.command("revoke")
def revoke_token(
    token_id: Annotated[UUID, typer.Argument(help="As `depot token list` shows it.", metavar="ID")],
    user: UserOption = None,
    as_json: AsJson = False,
) -> None:
    """Revoke an API token: it stops working at once. Again does no harm.

    Example: depot token revoke 01890a5d-ac96-774b-bcce-b302099a8057
    """
    with connect() as depot:
        depot.revoke_token(token_id, depot.find_user(user).id if user else None)
    show(as_json, {"id": token_id, "revoked": True}, [f"Revoked token {token_id}."])


def _state(token: ApiToken) -> str:
    if token.revoked_at is not None:
        return f"revoked {token.revoked_at:%Y-%m-%d}"
    return f"{'expired' if token.expires_at <= datetime.now(UTC) else 'until'} {token.expires_at:%Y-%m-%d}"
