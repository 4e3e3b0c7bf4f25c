"""depot webhook …"""

from itertools import islice
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from depot_api.cli.credentials import connect
from depot_api.cli.output import AsJson, note, show, table
from depot_api.cli.places import ProjectOption, choose_project
from depot_api.client.models import DeliveryStatus

webhooks = typer.Typer(no_args_is_help=True, help="Webhooks, for managers: what is told to other services.")
HERE = Path()
WebhookArgument = Annotated[UUID, typer.Argument(help="As `depot webhook list` shows it.", metavar="WEBHOOK")]


@webhooks.command("create")
def create_webhook(
    url: Annotated[str, typer.Argument(help="Where events are sent to.", metavar="URL")],
    project: ProjectOption = None,
    kind: Annotated[
        list[str] | None, typer.Option("--kind", "-k", help="Only events of this kind; can be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send a project's events to an address, and print the secret that signs them, this once.

    Example: depot webhook create https://ci.example.com/depot --kind changelist.submitted --project Skyfall
    """
    with connect() as depot:
        of, _ = choose_project(depot, project, HERE)
        made = depot.create_webhook(of.id, url, kind or ())
    note(f"Created webhook {made.id}. Keep its secret now: the depot cannot show it again.")
    show(as_json, made, [made.secret])


@webhooks.command("list")
def list_webhooks(project: ProjectOption = None, as_json: AsJson = False) -> None:
    """List a project's webhooks.

    Example: depot webhook list --project Skyfall
    """
    with connect() as depot:
        of, _ = choose_project(depot, project, HERE)
        found = list(depot.webhooks(of.id))
    rows = [
        (str(one.id), "" if one.is_active else "off", ", ".join(one.kinds) or "every kind", one.url) for one in found
    ]
    lines = table(("WEBHOOK", "STATE", "EVENTS", "URL"), rows) if rows else ["No webhooks."]
    show(as_json, {"webhooks": found}, lines)


@webhooks.command("delete")
def delete_webhook(webhook: WebhookArgument, project: ProjectOption = None, as_json: AsJson = False) -> None:
    """Delete a webhook; what is still pending is not sent any more.

    Example: depot webhook delete 0198c6a2-7c1e-7d7e-a4b8-0242ac120002 --project Skyfall
    """
    with connect() as depot:
        of, _ = choose_project(depot, project, HERE)
        depot.delete_webhook(of.id, webhook)
    show(as_json, {"deleted": webhook}, [f"Deleted webhook {webhook}."])


@webhooks.command("deliveries")
def deliveries(
    webhook: WebhookArgument,
    project: ProjectOption = None,
    status: Annotated[DeliveryStatus | None, typer.Option(help="Only these; dead is what was given up.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List what was sent to a webhook and what became of it, newest first.

    Example: depot webhook deliveries 0198c6a2-7c1e-7d7e-a4b8-0242ac120002 --status dead --project Skyfall
    """
    with connect() as depot:
        of, _ = choose_project(depot, project, HERE)
        found = list(islice(depot.deliveries(of.id, webhook, status), limit))
    rows = [
        (str(one.id), one.status, one.kind, str(one.attempts), str(one.last_status or one.last_error or ""))
        for one in found
    ]
    lines = table(("DELIVERY", "STATUS", "EVENT", "ATTEMPTS", "LAST ANSWER"), rows) if rows else ["No deliveries."]
    show(as_json, {"deliveries": found}, lines)


@webhooks.command("replay")
def replay(
    webhook: WebhookArgument,
    delivery: Annotated[UUID, typer.Argument(help="As `depot webhook deliveries` shows it.", metavar="DELIVERY")],
    project: ProjectOption = None,
    as_json: AsJson = False,
) -> None:
    """Send a delivery again, also one that was given up.

    Example: depot webhook replay 0198c6a2-7c1e-7d7e-a4b8-0242ac120002 01890a5d-ac96-774b-bcce-b302099a8057
    """
    with connect() as depot:
        of, _ = choose_project(depot, project, HERE)
        again = depot.replay_delivery(of.id, webhook, delivery)
    show(as_json, again, [f"Event {again.event_id} is sent again."])
