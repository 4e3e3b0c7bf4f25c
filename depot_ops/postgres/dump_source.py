"""What lies in the database, counted in the very snapshot that pg_dump reads."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql

LOCK_TIMEOUT_SECONDS = 300  # a migration holds its locks for seconds; what holds one longer needs a person

# What belongs to an extension comes back with the extension: pg_dump leaves it out, and so do these.
_TABLES = r"""
SELECT n.nspname, c.relname
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'r' AND c.relpersistence <> 't'
   AND n.nspname NOT LIKE 'pg\_%' AND n.nspname <> 'information_schema'
   AND NOT EXISTS (SELECT FROM pg_depend d
                    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
 ORDER BY 1, 2
"""

# Named as pg_dump names them in its table of contents. Parts that it derives from a parent are left out.
_OBJECTS = r"""
WITH schemas AS (
    SELECT oid FROM pg_namespace WHERE nspname NOT LIKE 'pg\_%' AND nspname <> 'information_schema'
), classes AS (
    SELECT c.oid, c.relkind, c.relrowsecurity FROM pg_class c
     WHERE c.relnamespace IN (SELECT oid FROM schemas) AND c.relpersistence <> 't'
       AND NOT EXISTS (SELECT FROM pg_depend d
                        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
)
SELECT kind, count(*) FROM (
    SELECT CASE relkind WHEN 'S' THEN 'SEQUENCE' WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW'
           ELSE 'TABLE' END
      FROM classes WHERE relkind IN ('r', 'p', 'S', 'v', 'm')
    UNION ALL
    SELECT 'TABLE DATA' FROM classes WHERE relkind = 'r'
    UNION ALL
    SELECT 'ROW SECURITY' FROM classes WHERE relrowsecurity
    UNION ALL
    SELECT 'POLICY' FROM classes c JOIN pg_policy p ON p.polrelid = c.oid
    UNION ALL
    SELECT 'TRIGGER' FROM classes c JOIN pg_trigger t ON t.tgrelid = c.oid
     WHERE NOT t.tgisinternal AND t.tgparentid = 0
    UNION ALL
    SELECT CASE k.contype WHEN 'f' THEN 'FK CONSTRAINT' ELSE 'CONSTRAINT' END
      FROM classes c JOIN pg_constraint k ON k.conrelid = c.oid
     WHERE k.contype IN ('p', 'u', 'x') OR (k.contype = 'f' AND k.conparentid = 0)
    UNION ALL
    SELECT 'INDEX' FROM classes c JOIN pg_index i ON i.indrelid = c.oid
     WHERE c.relkind IN ('r', 'p', 'm')
       AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x'))
    UNION ALL
    SELECT 'FUNCTION' FROM pg_proc f
     WHERE f.pronamespace IN (SELECT oid FROM schemas) AND f.prokind IN ('f', 'w')
       AND NOT EXISTS (SELECT FROM pg_depend d
                        WHERE d.classid = 'pg_proc'::regclass AND d.objid = f.oid AND d.deptype = 'e')
) AS objects (kind) GROUP BY kind ORDER BY kind
"""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One moment of the database, held open: whoever sets `id` reads exactly what is counted here."""

    connection: psycopg.Connection
    id: str

    @property
    def database(self) -> str:
        return self.connection.info.dbname

    @property
    def server_version(self) -> str:
        return self.connection.info.parameter_status("server_version") or str(self.connection.info.server_version)

    @property
    def server_major(self) -> int:
        return self.connection.info.server_version // 10_000

    def count_objects(self) -> dict[str, int]:
        """Objects by kind, in pg_dump's words."""
        return dict(self.connection.execute(_OBJECTS).fetchall())

    def roles(self) -> set[str]:
        """The cluster's roles, but those that every cluster has."""
        query = r"SELECT rolname FROM pg_roles WHERE rolname NOT LIKE 'pg\_%'"
        return {name for (name,) in self.connection.execute(query).fetchall()}

    def count_rows(self) -> dict[str, int]:
        """Rows by `schema.table`. Raises psycopg.errors.InsufficientPrivilege where a policy would hide rows."""
        tables = self.connection.execute(_TABLES).fetchall()
        return {f"{schema}.{table}": self._count(schema, table) for schema, table in tables}

    def _count(self, schema: str, table: str) -> int:
        # ONLY: pg_dump writes each child of an inherited table by itself.
        query = sql.SQL("SELECT count(*) FROM ONLY {}").format(sql.Identifier(schema, table))
        row = self.connection.execute(query).fetchone()
        assert row is not None
        return int(row[0])


@contextmanager
def open_snapshot(url: str) -> Iterator[Snapshot]:
    """Hold one read-only snapshot open while the block runs. Raises psycopg.Error."""
    with psycopg.connect(url, application_name="depot-ops backup", connect_timeout=10) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        # A policy that would hide rows is an error instead; and no limit may end a snapshot that a long dump reads.
        connection.execute(
            "SELECT set_config(name, CASE name WHEN 'row_security' THEN 'off' ELSE '0' END, true) FROM pg_settings"
            " WHERE name IN ('row_security', 'statement_timeout', 'idle_in_transaction_session_timeout',"
            " 'transaction_timeout')"
        )
        connection.execute("SELECT set_config('lock_timeout', %s, true)", (f"{LOCK_TIMEOUT_SECONDS}s",))
        row = connection.execute("SELECT pg_export_snapshot()").fetchone()
        assert row is not None
        yield Snapshot(connection, row[0])
