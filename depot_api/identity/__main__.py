"""`python -m depot_api.identity create-admin|create-token`: the first identity, made as the owner role."""

import argparse
import json
import os
import re
import sys
from datetime import UTC, datetime, timedelta

import psycopg
from psycopg.rows import dict_row

from depot_api.identity import queries
from depot_api.identity.models import TokenScope
from depot_api.identity.passwords import MIN_PASSWORD_CHARACTERS, hash_password
from depot_api.identity.tokens import API_TOKEN_PREFIX, hash_api_token, new_api_token


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m depot_api.identity", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    admin = commands.add_parser("create-admin", help="make the first admin; does nothing when there is one")
    admin.add_argument("--username", default="admin")
    token = commands.add_parser(
        "create-token", help="make an API token, printed once; or the one in DEPOT_API_TOKEN, once"
    )
    token.add_argument("--username", required=True)
    token.add_argument("--name", required=True)
    token.add_argument("--scope", type=TokenScope, choices=list(TokenScope), default=TokenScope.WRITE)
    token.add_argument("--days", type=int, default=90)
    options = parser.parse_args(arguments)
    url = os.environ.get("DATABASE_OWNER_URL") or sys.exit("DATABASE_OWNER_URL is not set; this command needs it.")
    with psycopg.connect(url, row_factory=dict_row) as owner:
        result = _create_admin(owner, options) if options.command == "create-admin" else _create_token(owner, options)
    sys.stdout.write(json.dumps(result) + "\n")


def _create_admin(owner: psycopg.Connection[dict[str, object]], options: argparse.Namespace) -> dict[str, object]:
    password = os.environ.get("DEPOT_ADMIN_PASSWORD", "")
    if len(password) < MIN_PASSWORD_CHARACTERS:
        sys.exit(f"DEPOT_ADMIN_PASSWORD must hold {MIN_PASSWORD_CHARACTERS} characters or more.")
    if queries.admin_exists(owner):
        return {"username": options.username, "created": False}
    queries.insert_admin(owner, options.username, hash_password(password))
    return {"username": options.username, "created": True}


def _create_token(owner: psycopg.Connection[dict[str, object]], options: argparse.Namespace) -> dict[str, object]:
    token = os.environ.get("DEPOT_API_TOKEN") or new_api_token()
    if not re.fullmatch(API_TOKEN_PREFIX + r"[A-Za-z0-9_-]{43,}", token):
        sys.exit(
            f"DEPOT_API_TOKEN must be {API_TOKEN_PREFIX} and 43 or more random characters. Leave it out to get one."
        )
    expires_at = datetime.now(UTC) + timedelta(days=options.days)
    made = queries.insert_token(owner, options.username, options.name, hash_api_token(token), options.scope, expires_at)
    if not made:
        sys.exit(f"There is no active user {options.username!r}. Make it first.")
    return {"token": token, "expires_at": expires_at.isoformat()}


if __name__ == "__main__":
    main(sys.argv[1:])
