"""A dump becomes a database again, whole or with one project's rows, and is counted against its record.

It is filled under a name of its own, and gets the name that was asked for only when it is complete and proved.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from pydantic import BaseModel, ConfigDict

from depot_ops.evidence import Status, worst
from depot_ops.postgres.binaries import Binaries
from depot_ops.postgres.client_tools import BadAddress, ToolFailed, client_environment, running
from depot_ops.postgres.cluster_globals import GlobalsIncomplete, restore_roles
from depot_ops.postgres.dump_checks import verify
from depot_ops.postgres.dump_record import BackupRecord, load_record

RESTORING_SUFFIX = ".restoring"
LOCK_TIMEOUT = "10s"  # a server ends what a killed run had begun, such as copying a template
# Outside the depot's schema no table has tenants; these have them without the column.
_TENANT_TABLES = """
    SELECT c.relname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attname = 'project_id'
      AND NOT a.attisdropped ORDER BY c.relname
"""


class DumpRestoreError(Exception):
    """Nothing was restored; the message says what was seen and what to do."""


class DumpUnusable(DumpRestoreError):
    """The dump is missing or damaged: another copy may have it."""


class DumpRestored(BaseModel):
    """What was restored, and how long it took."""

    model_config = ConfigDict(frozen=True)

    schema_version: Literal[1] = 1
    dump: str
    database: str
    project_id: UUID | None
    roles_created: tuple[str, ...] = ()
    row_counts: dict[str, int]
    duration_seconds: float


def restore_dump(
    dump: Path,
    server_url: str,
    database: str,
    binaries: Binaries,
    *,
    project_id: UUID | None = None,
    jobs: int = 2,
    with_roles: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> DumpRestored:
    """Restore `dump` into the new database on the server, as a superuser. Raises DumpRestoreError.

    The roles have to be there, or are made first `with_roles`. With `project_id` the rows of all other projects are
    taken out again. `say` is told what begins.
    """
    started = time.monotonic()
    say(f"reading {dump.name}")
    record = _proved(dump, binaries)
    partial = database + RESTORING_SUFFIX
    try:
        with psycopg.connect(server_url, autocommit=True) as server:
            _refuse_another(server, partial)
            _refuse_existing(server, database)
            roles = _restore_roles(server, record) if with_roles else []
            server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(partial)))
            server.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(partial)))
            say(f"loading it into {database}")
            try:
                counts = _fill(dump, make_conninfo(server_url, dbname=partial), record, binaries, project_id, jobs)
                rename = sql.SQL("ALTER DATABASE {} RENAME TO {}")
                server.execute(rename.format(sql.Identifier(partial), sql.Identifier(database)))
            except BaseException:
                server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(partial)))
                raise
    except (GlobalsIncomplete, ToolFailed, BadAddress, psycopg.Error) as error:
        raise DumpRestoreError(f"{dump.name} was not restored into {database}: {str(error).strip()}") from error
    return DumpRestored(
        dump=dump.name,
        database=database,
        project_id=project_id,
        roles_created=tuple(roles),
        row_counts=counts,
        duration_seconds=round(time.monotonic() - started, 3),
    )


def _proved(dump: Path, binaries: Binaries) -> BackupRecord:
    findings = verify(dump, binaries)
    if worst(findings) is not Status.HEALTHY:
        broken = next(finding for finding in findings if finding.status is not Status.HEALTHY)
        raise DumpUnusable(f"{dump.name} is not what was dumped: {broken.check}, {broken.detail}. Take another one")
    return load_record(dump)


def _restore_roles(server: psycopg.Connection[Any], record: BackupRecord) -> list[str]:
    if record.globals is None:
        raise DumpRestoreError(f"{record.file} was taken by a version that did not keep roles: create them yourself")
    return restore_roles(server, record.globals)


def _refuse_another(server: psycopg.Connection[Any], partial: str) -> None:
    """A second run would drop what the first one fills. The lock goes with its session, which ends a killed run too."""
    server.execute("SELECT set_config('lock_timeout', %s, false)", (LOCK_TIMEOUT,))
    try:
        server.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (partial,))
    except psycopg.errors.LockNotAvailable:
        raise DumpRestoreError(
            f"another restore fills {partial}: wait until it has ended, or name another database"
        ) from None
    server.execute("RESET lock_timeout")


def _refuse_existing(server: psycopg.Connection[Any], database: str) -> None:
    if server.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,)).fetchone():
        raise DumpRestoreError(f"there is a database {database} already: name a new one, nothing is ever overwritten")


def _fill(
    dump: Path, url: str, record: BackupRecord, binaries: Binaries, project_id: UUID | None, jobs: int
) -> dict[str, int]:
    command = [str(binaries.path("pg_restore")), "--exit-on-error", f"--jobs={jobs}", "--dbname=", str(dump)]
    with running(command, client_environment(url)):
        pass
    with psycopg.connect(url) as connection:
        counts = {table: _count(connection, table) for table in record.row_counts}
        if wrong := [table for table, rows in counts.items() if rows != record.row_counts[table]]:
            raise DumpRestoreError(
                f"{wrong[0]} has {counts[wrong[0]]} rows after the restore and had {record.row_counts[wrong[0]]} when"
                " it was dumped: the database was removed again"
            )
        if project_id is not None:
            _keep_one_project(connection, project_id)
            counts = {table: _count(connection, table) for table in record.row_counts}
    return counts


def _count(connection: psycopg.Connection[Any], table: str) -> int:
    schema, name = table.split(".", 1)
    query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(schema, name))
    row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def _keep_one_project(connection: psycopg.Connection[Any], project_id: UUID) -> None:
    """Users stay, for history names them; contents that only other projects referred to go."""
    if not connection.execute("SELECT 1 FROM projects WHERE id = %s", (project_id,)).fetchone():
        raise DumpRestoreError(f"the dump has no project {project_id}")
    # History is append-only by triggers, and the order of foreign keys is of no matter: all that go, go together.
    connection.execute("SET LOCAL session_replication_role = replica")
    for (table,) in connection.execute(_TENANT_TABLES).fetchall():
        query = sql.SQL("DELETE FROM {} WHERE project_id IS DISTINCT FROM %s").format(sql.Identifier(table))
        connection.execute(query, (project_id,))
    connection.execute("DELETE FROM projects WHERE id <> %s", (project_id,))
    connection.execute(
        """DELETE FROM blobs b WHERE NOT EXISTS (SELECT FROM project_blobs p WHERE p.sha256 = b.sha256)
           AND NOT EXISTS (SELECT FROM upload_receipts r WHERE r.sha256 = b.sha256)"""
    )
