"""Invariant 7: row-level security is the wall. Walks every table, so that a new one cannot be forgotten."""

from contextlib import suppress

import psycopg
import pytest
from psycopg import errors, sql
from psycopg.types.json import Jsonb

from tests.depot_api.test_permissions_matrix import POLICY, status_of, world

__all__ = ["world"]
# Migration bookkeeping; it holds no tenant's data.
NOT_TENANT_DATA = {"alembic_version"}
HISTORY = ("asset_versions", "branch_heads", "branch_lineage", "events", "audit_log", "project_blobs")


def tables(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    return sorted({row[0] for row in rows} - NOT_TENANT_DATA)


def as_user(connection: psycopg.Connection, user_id: str) -> None:
    connection.execute("SELECT set_app_user(%s)", (user_id,))


def visible_rows(connection: psycopg.Connection, table: str) -> int:
    """Rows that the service's role sees, by a column that it may read. -1 where it may read none."""
    readable = connection.execute(
        """SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped
           AND has_column_privilege(attrelid, attnum, 'SELECT') LIMIT 1""",
        (table,),
    ).fetchone()
    if readable is None:
        return -1
    query = sql.SQL("SELECT {} FROM {}").format(sql.Identifier(readable[0]), sql.Identifier(table))
    return len(connection.execute(query).fetchall())


def test_every_table_has_forced_row_level_security(depot_database):
    with psycopg.connect(depot_database.owner_url) as connection:
        rows = connection.execute(
            """SELECT relname, relrowsecurity, relforcerowsecurity FROM pg_class
               WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"""
        ).fetchall()
    bare = {name for name, enabled, forced in rows if not (enabled and forced)}
    assert bare == NOT_TENANT_DATA
    assert len(rows) > 25


def test_the_service_role_has_no_power_over_the_wall(depot_database):
    with psycopg.connect(depot_database.service_url) as connection:
        role = connection.execute(
            "SELECT rolsuper, rolbypassrls, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = current_user"
        ).fetchone()
        owned = connection.execute("SELECT count(*) FROM pg_class WHERE relowner = current_user::regrole").fetchone()
        assert role == (False, False, False, False)
        assert owned == (0,)


def test_the_role_of_operations_writes_canaries_and_can_do_nothing_else(depot_database):
    with psycopg.connect(depot_database.ops_url, autocommit=True) as connection:
        written = connection.execute("INSERT INTO ops_canaries DEFAULT VALUES RETURNING id").fetchall()
        assert connection.execute("SELECT id FROM ops_canaries").fetchall() == written
        for statement in (
            "SELECT count(*) FROM assets",
            "UPDATE ops_canaries SET written_at = now()",
            "DELETE FROM ops_canaries",
            "CREATE TABLE mine (id int)",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)
        role = connection.execute("SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user")
        assert role.fetchone() == (False,)


def owned_rows(url: str, table: str) -> int:
    with psycopg.connect(url) as owner:
        row = owner.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone()
    assert row is not None
    return int(row[0])


@pytest.fixture(scope="module")
def full(api, world):
    """A service with rows in every table: of what every route writes, and of what needs more than a request."""
    admin, project = world.project.http, world.project.id
    for route in sorted(route for route in POLICY if not route.startswith("GET ")):
        status_of(world, route, admin)
    key = {"Idempotency-Key": "once"}
    world.made("POST", "/changelists", headers=key, json={"project_id": project, "branch_id": world.project.main})
    have = {"at": 1, "files": [{"path": "seen", "version": 1}]}
    world.made("POST", f"/workspaces/{world.workspace()}/synced", json=have)
    world.made("PUT", f"/projects/{project}/typemap", json={"rules": [{"pattern": "*.png"}]})
    rules = {"rules": [{"pattern": "**", "access": "read", "role": "viewer"}]}
    world.made("PUT", f"/projects/{project}/path-permissions", json=rules)
    with psycopg.connect(api.owner_url) as owner:
        owner.execute("INSERT INTO ops_canaries DEFAULT VALUES")
        owner.execute("INSERT INTO blob_tombstones (sha256) SELECT sha256 FROM blobs LIMIT 1")
        owner.execute(
            """INSERT INTO upload_reservations (project_id, user_id, size_bytes, expires_at)
               SELECT project_id, user_id, 1, now() + interval '1 day' FROM project_members WHERE project_id = %s""",
            (project,),
        )
    empty = [table for table in tables(api.owner_url) if owned_rows(api.owner_url, table) == 0]
    assert empty == [], "a table that nothing fills proves nothing"
    return api


@pytest.fixture(params=["stranger", "nobody"])
def outsider(full, request):
    """A connection of the service's: for somebody who is in no project, or with no identity at all."""
    with psycopg.connect(full.service_url) as service:
        if request.param == "stranger":
            as_user(service, full.user("editor").id)
        yield service


def own_rows(connection: psycopg.Connection, table: str) -> int:
    """What a stranger may see: names of colleagues, which are not a tenant's, and the token that it has."""
    if connection.execute("SELECT app_user_id()").fetchone() == (None,):
        return 0
    return {"users": 1_000_000, "api_tokens": 1}.get(table, 0)


def test_an_outsider_sees_no_row_in_any_table(full, outsider):
    for table in tables(full.owner_url):
        seen = visible_rows(outsider, table)
        assert seen <= own_rows(outsider, table), f"{table}: an outsider sees {seen} rows"


def columns(connection: psycopg.Connection, table: str, privilege: str) -> list[sql.Identifier]:
    """Those that the service may write itself."""
    rows = connection.execute(
        """SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped
           AND attidentity = '' AND attgenerated = '' AND has_column_privilege(attrelid, attnum, %s)""",
        (table, privilege),
    ).fetchall()
    return [sql.Identifier(name) for (name,) in rows]


def changed(connection: psycopg.Connection, statement: sql.Composed, *parameters: object) -> int:
    """How many rows it wrote; it is undone."""
    with connection.transaction(force_rollback=True):
        return connection.execute(statement, parameters).rowcount


def test_an_outsider_changes_no_row_in_any_table(full, outsider):
    for name in tables(full.owner_url):
        table, allowed = sql.Identifier(name), min(own_rows(outsider, name), 1)
        statements = [
            sql.SQL("UPDATE {} SET {} = NULL").format(table, column) for column in columns(outsider, name, "UPDATE")
        ]
        for statement in [*statements, sql.SQL("DELETE FROM {}").format(table)]:
            with suppress(errors.InsufficientPrivilege):
                assert changed(outsider, statement) <= allowed, f"{name}: an outsider changed rows"


def test_an_outsider_adds_no_row_to_any_table(full, outsider, cluster):
    """Without triggers: they come before the wall, and which of them minds depends on the row that is copied."""
    (who,) = outsider.execute("SELECT app_user_id()").fetchone()
    with (
        psycopg.connect(cluster.url(full.owner_url.rpartition("/")[2])) as bare,
        psycopg.connect(full.owner_url) as owner,
    ):
        bare.execute("SET session_replication_role = 'replica'")
        bare.execute("SET SESSION AUTHORIZATION depot_service")
        if who:
            as_user(bare, who)
        for name in tables(full.owner_url):
            names = columns(outsider, name, "INSERT")
            if not names:
                continue
            table, listed = sql.Identifier(name), sql.SQL(", ").join(names)
            row = owner.execute(sql.SQL("SELECT to_jsonb(t) FROM {} t LIMIT 1").format(table)).fetchone()
            assert row is not None
            insert = sql.SQL("INSERT INTO {} ({}) SELECT {} FROM jsonb_populate_record(NULL::{}, %s)")
            # The wall comes before what a row may not repeat: another error would mean that there is none.
            with pytest.raises(errors.InsufficientPrivilege):
                changed(bare, insert.format(table, listed, listed, table), Jsonb(row[0]))


def test_a_password_hash_cannot_be_selected(api):
    user = api.user()
    with psycopg.connect(api.service_url) as connection:
        as_user(connection, user.id)
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute("SELECT password_hash FROM users")


@pytest.mark.parametrize("table", HISTORY)
@pytest.mark.parametrize("statement", ["UPDATE {} SET project_id = project_id", "DELETE FROM {}"])
def test_the_service_cannot_change_history(api, project, table, statement):
    project.add("Content/a.uasset", b"a")
    admin = project.http.get("/auth/me").json()["id"]
    with psycopg.connect(api.service_url) as connection:
        as_user(connection, admin)
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute(sql.SQL(statement).format(sql.Identifier(table)))


@pytest.mark.parametrize("table", ["asset_versions", "branch_heads", "branch_lineage", "events", "audit_log"])
def test_not_even_the_owner_changes_history(api, project, table):
    project.add("Content/a.uasset", b"a")
    with psycopg.connect(api.owner_url) as connection, pytest.raises(errors.RestrictViolation):
        connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))


def test_a_submitted_changelist_never_changes(api, project):
    changelist = project.open([{"action": "add", "path": "a", "sha256": project.put(b"a")}])
    assert project.http.post(f"/changelists/{changelist}/submit").status_code == 200
    for statement in (
        "UPDATE changelists SET number = number + 1 WHERE id = %s",
        "UPDATE changelists SET description = 'other' WHERE id = %s",
        "DELETE FROM changelist_items WHERE changelist_id = %s",
        "UPDATE changelist_items SET path = 'b' WHERE changelist_id = %s",
    ):
        with psycopg.connect(api.owner_url) as connection, pytest.raises(errors.RestrictViolation):
            connection.execute(statement, (changelist,))


def test_nobody_raises_their_own_role(api, project):
    member = project.member("contributor")
    with psycopg.connect(api.service_url) as connection:
        as_user(connection, member.id)
        raised = connection.execute("UPDATE project_members SET role = 'owner' WHERE user_id = %s", (member.id,))
        assert raised.rowcount == 0
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute("UPDATE users SET studio_role = 'admin' WHERE id = %s", (member.id,))


def test_an_archived_project_refuses_writes_in_the_database(api, project):
    with psycopg.connect(api.owner_url) as owner:
        owner.execute("UPDATE projects SET status = 'archived' WHERE id = %s", (project.id,))
    admin = project.http.get("/auth/me").json()["id"]
    with psycopg.connect(api.service_url) as connection:
        as_user(connection, admin)
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute("INSERT INTO changelists (project_id, author_id) VALUES (%s, %s)", (project.id, admin))
    response = project.http.post("/changelists", json={"project_id": project.id})
    assert (response.status_code, response.json()["type"].rsplit(":")[-1]) == (409, "project-archived")


def test_the_dump_role_reads_everything_and_writes_nothing(api, project):
    project.add("Content/a.uasset", b"a")
    dump_url = api.owner_url.replace("depot_owner", "depot_dump")
    with psycopg.connect(dump_url) as dump, psycopg.connect(api.owner_url) as owner:
        for table in tables(api.owner_url):
            count = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))
            assert dump.execute(count).fetchone() == owner.execute(count).fetchone()
        with pytest.raises(errors.ReadOnlySqlTransaction):
            dump.execute("CREATE TABLE mine ()")
    with psycopg.connect(dump_url) as dump, pytest.raises(errors.InsufficientPrivilege):
        dump.execute("SET default_transaction_read_only = off")
        dump.commit()
        dump.execute("DELETE FROM labels")
