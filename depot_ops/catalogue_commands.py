"""`depot-ops catalogue`: the depot's catalogue, made again from its store."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Make the catalogue of a lost database again.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `rebuild` a command of its own while it is the only one."""


@app.command()
def rebuild(
    store: Annotated[
        Path, typer.Option(envvar="ASSET_STORAGE_PATH", help="Root of the blob store: above refs/ and objects/.")
    ],
    database_url: Annotated[
        str, typer.Option(envvar="DATABASE_OWNER_URL", help="PostgreSQL URL of the role depot_owner.")
    ],
) -> None:
    """Fill an empty, migrated database from refs/ and objects/ alone: 0 all is there, 1 not all or nothing.

    Prints what came back and what is missing as JSON. Accounts come back deactivated and without a password, so make
    an admin next. Example: depot-ops catalogue rebuild --store /var/lib/asset-depot --database-url postgresql://…
    """
    environment = {**os.environ, "DATABASE_OWNER_URL": database_url, "ASSET_STORAGE_PATH": str(store)}
    done = subprocess.run([sys.executable, "-m", "depot_api.database", "rebuild"], env=environment, check=False)
    raise typer.Exit(done.returncode)
