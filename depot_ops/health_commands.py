"""`depot-ops health`: the same question that the night asks."""

from typing import Annotated

import typer

from depot_ops.console import failed, reported
from depot_ops.evidence import Status
from depot_ops.health import check_service
from depot_ops.settings import ServiceSettings, SettingsError, load

app = typer.Typer()


@app.command()
def health(as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")] = False) -> None:
    """Ask the depot at DEPOT_URL how it is: 0 healthy, 1 unhealthy, 3 unknown."""
    try:
        settings = load(ServiceSettings)
    except SettingsError as error:
        raise failed(error, Status.UNKNOWN) from None
    raise reported([check_service(str(settings.depot_url))], as_json)
