"""A database to back up, and backups of it to prove or to damage."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from depot_ops.postgres.dump import DumpOptions, take_logical_backup

SCHEMA = """
CREATE TABLE users (id int PRIMARY KEY, name text);
CREATE TABLE assets (id int PRIMARY KEY, owner_id int REFERENCES users, path text);
CREATE INDEX ON assets (path);
INSERT INTO users SELECT g, 'user ' || g FROM generate_series(1, 100) g;
INSERT INTO assets SELECT g, 1 + g % 100, 'characters/hero/' || g FROM generate_series(1, 5000) g;
"""


@dataclass(frozen=True)
class Source:
    """A database of its own on the test cluster, with a few tables."""

    url: str
    name: str

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []


@pytest.fixture
def source(cluster) -> Iterator[Source]:
    name = f"source_{secrets.token_hex(4)}"
    with psycopg.connect(cluster.url("postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        database = Source(cluster.url(name), name)
        database.execute(SCHEMA)
        yield database
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def filtered_url(cluster, source) -> Iterator[str]:
    """The source as a role that may read every table, but not past a policy."""
    role, password = f"filtered_{secrets.token_hex(4)}", secrets.token_hex(16)
    source.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{password}' IN ROLE pg_read_all_data")
    yield make_conninfo(source.url, user=role, password=password)
    source.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.fixture
def backups(tmp_path: Path) -> Path:
    return tmp_path / "backups"


@pytest.fixture
def dump(cluster, source, backups) -> Path:
    """A proved backup of the source."""
    return backups / take_logical_backup(source.url, backups, cluster.binaries).file


@pytest.fixture
def uncompressed_dump(cluster, source, backups) -> Path:
    return backups / take_logical_backup(source.url, backups, cluster.binaries, DumpOptions(compression="0")).file
