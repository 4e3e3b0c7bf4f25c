"""`python -m depot_api.database bootstrap|upgrade|current|rebuild`: run before the service starts."""

import os
import sys
from pathlib import Path

import psycopg

from depot_api.database.bootstrap import ROLES, bootstrap
from depot_api.database.migrate import upgrade
from depot_api.database.rebuild import RebuildError, rebuild


def _required(variable: str) -> str:
    value = os.environ.get(variable)
    if not value:
        sys.exit(f"{variable} is not set; this command needs it.")
    return value


def _bootstrap() -> None:
    passwords = {role: _required(f"{role.upper()}_PASSWORD") for role in ROLES}
    bootstrap(_required("DEPOT_BOOTSTRAP_URL"), passwords)


def _upgrade() -> None:
    upgrade(_required("DATABASE_OWNER_URL"))


def _current() -> None:
    with psycopg.connect(_required("DATABASE_OWNER_URL")) as connection:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    sys.stdout.write(f"{row[0] if row else 'none'}\n")


def _rebuild() -> None:
    try:
        rebuilt = rebuild(_required("DATABASE_OWNER_URL"), Path(_required("ASSET_STORAGE_PATH")))
    except RebuildError as error:
        sys.exit(str(error))
    sys.stdout.write(rebuilt.model_dump_json(indent=2) + "\n")
    sys.exit(0 if rebuilt.is_whole else 1)


COMMANDS = {"bootstrap": _bootstrap, "upgrade": _upgrade, "current": _current, "rebuild": _rebuild}


def main(arguments: list[str]) -> None:
    if len(arguments) != 1 or arguments[0] not in COMMANDS:
        sys.exit(f"usage: python -m depot_api.database {'|'.join(COMMANDS)}")
    try:
        COMMANDS[arguments[0]]()
    except psycopg.OperationalError as error:
        sys.exit(f"The database cannot be used: {error}. Check the address and that the server runs.")


if __name__ == "__main__":
    main(sys.argv[1:])
