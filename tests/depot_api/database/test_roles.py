"""The roles of docs/security.md, as the database has them: what each may, and what it may not."""

import re
from pathlib import Path

import psycopg
import pytest

from depot_api.database.bootstrap import ROLES
from depot_ops.postgres.cluster import Cluster

PAGE = Path(__file__).parents[3] / "docs" / "security.md"
SECRETS = (
    "SELECT password_hash FROM users",
    "SELECT token_sha256 FROM api_tokens",
    "SELECT * FROM login_failures",
    "SELECT secret FROM webhook_secrets",
    "SELECT response FROM idempotency_keys",
)


def refused(connection: psycopg.Connection, statement: str) -> None:
    with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction)):
        connection.execute(statement)


def test_the_page_lists_the_roles_as_they_are(cluster, depot_template):
    listed = dict(re.findall(r"^\| `(depot_\w+)` \| (bound|bypasses|–) \|", PAGE.read_text(), re.M))
    with psycopg.connect(cluster.url()) as admin:
        rows = admin.execute(
            """SELECT rolname, rolbypassrls, rolreplication, rolsuper OR rolcreatedb OR rolcreaterole FROM pg_roles
               WHERE rolname = ANY (%s)""",
            (list(ROLES),),
        ).fetchall()
    assert {row[0] for row in rows} == set(ROLES) == set(listed)
    assert {row[0] for row in rows if row[1]} == {role for role, wall in listed.items() if wall == "bypasses"}
    assert [row[0] for row in rows if row[2]] == ["depot_replication"]
    assert not [row[0] for row in rows if row[3]]


def test_memberships_are_those_of_the_page(cluster, depot_template):
    with psycopg.connect(cluster.url()) as admin:
        rows = admin.execute(
            """SELECT member::regrole::text, roleid::regrole::text FROM pg_auth_members
               WHERE member = ANY (%s::regrole[])""",
            (list(ROLES),),
        ).fetchall()
    assert set(rows) == {
        ("depot_dump", "pg_read_all_data"),
        ("depot_monitor", "pg_monitor"),
        ("depot_pgadmin", "pg_monitor"),
        ("depot_pgadmin", "pg_signal_backend"),
    }


def test_pgadmin_reads_past_the_wall_and_no_secret_and_writes_nothing(cluster: Cluster, depot_database):
    with psycopg.connect(depot_database.owner_url) as owner:
        owner.execute("INSERT INTO users (username, password_hash) VALUES ('looked-at', 'a hash')")
    with psycopg.connect(cluster.url(depot_database.name, "depot_pgadmin"), autocommit=True) as looking:
        assert looking.execute("SELECT username FROM users").fetchall() == [("looked-at",)]
        unreadable = looking.execute(
            """SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
               AND NOT has_any_column_privilege(oid, 'SELECT')"""
        ).fetchall()
        assert {row[0] for row in unreadable} == {"login_failures", "webhook_secrets", "idempotency_keys"}
        for statement in SECRETS:
            refused(looking, statement)
        looking.execute("SET default_transaction_read_only = off")  # a courtesy, and not the wall
        for statement in ("UPDATE users SET is_active = false", "DELETE FROM audit_log", "CREATE TABLE mine (id int)"):
            refused(looking, statement)
        refused(looking, "SELECT begin_cluster_epoch('mine', 'a test')")


@pytest.mark.parametrize("role", ["depot_monitor", "depot_replication"])
def test_who_watches_and_who_copies_read_no_table(cluster, depot_database, role):
    with psycopg.connect(cluster.url(depot_database.name, role)) as connection:
        readable = connection.execute(
            """SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
               AND has_any_column_privilege(oid, 'SELECT, INSERT, UPDATE')"""
        ).fetchall()
    assert readable == []
