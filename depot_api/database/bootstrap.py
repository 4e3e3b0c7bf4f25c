"""Roles and the database: what a superuser has to make once, before the first migration."""

import psycopg
from psycopg import sql

# Only a superuser can hand out BYPASSRLS, which is why migrations (run as the owner) cannot make these roles.
ROLES = {
    "depot_owner": "LOGIN BYPASSRLS NOSUPERUSER NOCREATEDB NOCREATEROLE",
    "depot_service": "LOGIN NOBYPASSRLS NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT",
    "depot_dump": "LOGIN BYPASSRLS NOSUPERUSER NOCREATEDB NOCREATEROLE",
    "depot_ops": "LOGIN NOBYPASSRLS NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT",
    "depot_replication": "LOGIN REPLICATION NOBYPASSRLS NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT",
    "depot_monitor": "LOGIN NOBYPASSRLS NOSUPERUSER NOCREATEDB NOCREATEROLE",
    "depot_pgadmin": "LOGIN BYPASSRLS NOSUPERUSER NOCREATEDB NOCREATEROLE",
}

# Every access path of the service has an index that gives its order. After a large submit the statistics still say
# that a table is small, and a plan that scans or sorts it looks cheap and takes minutes (docs/adr/0005).
SERVICE_PLANNER_SETTINGS = ("enable_seqscan", "enable_bitmapscan")


def bootstrap(superuser_url: str, passwords: dict[str, str], database: str = "depot") -> None:
    """Make the roles and the database where they are missing, and set the roles' passwords.

    `passwords` has one entry for each name in ROLES. Safe to run again.
    """
    with psycopg.connect(superuser_url, autocommit=True) as connection:
        for role, attributes in ROLES.items():
            _make_role(connection, role, attributes, passwords[role])
        for setting in SERVICE_PLANNER_SETTINGS:
            connection.execute(sql.SQL("ALTER ROLE depot_service SET {} = off").format(sql.Identifier(setting)))
        connection.execute("ALTER ROLE depot_dump SET default_transaction_read_only = on")
        connection.execute("ALTER ROLE depot_pgadmin SET default_transaction_read_only = on")
        connection.execute("GRANT pg_read_all_data TO depot_dump")
        connection.execute("GRANT pg_monitor TO depot_monitor, depot_pgadmin")
        connection.execute("GRANT pg_signal_backend TO depot_pgadmin")  # to end a transaction that holds others up
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,)).fetchone():
            connection.execute(sql.SQL("CREATE DATABASE {} OWNER depot_owner").format(sql.Identifier(database)))


def _make_role(connection: psycopg.Connection, role: str, attributes: str, password: str) -> None:
    exists = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone()
    # The server gets a SCRAM verifier, never the password: statements can end up in its log.
    verifier = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
    connection.execute(
        sql.SQL("{verb} ROLE {role} {attributes} PASSWORD {verifier}").format(
            verb=sql.SQL("ALTER" if exists else "CREATE"),
            role=sql.Identifier(role),
            attributes=sql.SQL(attributes),
            verifier=sql.Literal(verifier),
        )
    )
