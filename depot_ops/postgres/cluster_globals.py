"""What a cluster has beside its databases: a dump names roles and tablespaces, and does not hold them."""

import re
import subprocess
from hashlib import sha256
from typing import Any

import psycopg

from depot_ops.postgres.binaries import Binaries
from depot_ops.postgres.client_tools import client_environment, running
from depot_ops.postgres.dump_record import Globals
from depot_ops.postgres.dump_source import Snapshot

_COMPLETE = "-- PostgreSQL database cluster dump complete"
_IDENTIFIER = r'("(?:[^"]|"")+"|[^"; ]+)'
_CREATE_ROLE = re.compile(rf"^CREATE ROLE {_IDENTIFIER};$", re.MULTILINE)
_ROLE_STATEMENT = re.compile(rf"^(?:CREATE|ALTER) ROLE {_IDENTIFIER}[ ;]")
_CREATE_TABLESPACE = re.compile(rf"^CREATE TABLESPACE {_IDENTIFIER} ", re.MULTILINE)


class GlobalsIncomplete(Exception):
    """The statements are not all that the cluster has; the message says what is missing."""


def take_globals(url: str, snapshot: Snapshot, binaries: Binaries, *, passwords: bool) -> Globals:
    """Write down roles and tablespaces of the cluster at `url`. Raises GlobalsIncomplete, ToolFailed."""
    command = [
        str(binaries.path("pg_dumpall")),
        "--globals-only",
        *([] if passwords else ["--no-role-passwords"]),
        "--no-password",
        f"--database={snapshot.database}",
    ]
    environment = {**client_environment(url), "PGCLIENTENCODING": "UTF8"}
    with running(command, environment, stdout=subprocess.PIPE) as dumping:
        assert dumping.stdout is not None
        script = dumping.stdout.read().decode()
    roles = tuple(_unquoted(name) for name in _CREATE_ROLE.findall(script))
    if missing := snapshot.roles() - set(roles):
        raise GlobalsIncomplete(f"pg_dumpall did not write the roles {', '.join(sorted(missing))}: take the dump again")
    if _COMPLETE not in script:
        raise GlobalsIncomplete("pg_dumpall ended before it was complete: take the dump again")
    digest = sha256(script.encode()).hexdigest()
    return Globals(sql=script, sha256=digest, roles=roles, has_passwords=passwords)


def restore_roles(server: psycopg.Connection[Any], saved: Globals) -> list[str]:
    """Make the roles that `server` lacks, as a superuser, in one transaction; those that it has stay as they are.

    Raises GlobalsIncomplete when it lacks a tablespace: only a person knows which disk that is to lie on.
    """
    present = {name for (name,) in server.execute("SELECT rolname FROM pg_roles").fetchall()}
    spaces = {name for (name,) in server.execute("SELECT spcname FROM pg_tablespace").fetchall()}
    if lacking := {_unquoted(name) for name in _CREATE_TABLESPACE.findall(saved.sql)} - spaces:
        raise GlobalsIncomplete(f"the server lacks the tablespaces {', '.join(sorted(lacking))}: create them first")
    created = [role for role in saved.roles if role not in present]
    if created:
        server.execute("".join(line for line in saved.sql.splitlines(keepends=True) if _wanted(line, present)).encode())
    return created


def _wanted(line: str, present: set[str]) -> bool:
    # Backslashes are for psql only.
    if line.startswith("\\") or _CREATE_TABLESPACE.match(line):
        return False
    role = _ROLE_STATEMENT.match(line)
    return role is None or _unquoted(role[1]) not in present


def _unquoted(identifier: str) -> str:
    return identifier[1:-1].replace('""', '"') if identifier.startswith('"') else identifier
