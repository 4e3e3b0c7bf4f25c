"""A dump becomes a database again under its final name, whole, or not at all."""

import os
import random
import secrets
import signal
import subprocess
import sys
import time

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from typer.testing import CliRunner

from depot_ops.postgres import dump_restore
from depot_ops.postgres.binaries import find_binaries
from depot_ops.postgres.dump import take_logical_backup
from depot_ops.postgres.dump_restore import DumpRestoreError, restore_dump
from depot_ops.restore_commands import app

KILLS = int(os.environ.get("RESTORE_KILLS", "2"))  # `make torture` takes more
RESTORE = """
import sys
from pathlib import Path
from depot_ops.postgres.binaries import find_binaries
from depot_ops.postgres.dump_restore import restore_dump
print("ready", flush=True)
restore_dump(Path(sys.argv[1]), sys.argv[2], sys.argv[3], find_binaries())
"""


@pytest.fixture
def new_name(cluster):
    name = f"restored_{secrets.token_hex(4)}"
    yield name
    with psycopg.connect(cluster.url(), autocommit=True) as server:
        server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def databases(cluster) -> set[str]:
    with psycopg.connect(cluster.url()) as server:
        return {row[0] for row in server.execute("SELECT datname FROM pg_database").fetchall()}


def renaming(cluster) -> bool:
    active = "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'ALTER DATABASE%'"
    with psycopg.connect(cluster.url()) as server:
        return bool(server.execute(active).fetchall())


def take(url, backups):
    return backups / take_logical_backup(url, backups, find_binaries()).file


def test_every_row_is_there_again(cluster, source, backups, new_name):
    report = restore_dump(take(source.url, backups), cluster.url(), new_name, find_binaries())
    assert report.row_counts == {"public.users": 100, "public.assets": 5000}
    with psycopg.connect(cluster.url(new_name)) as restored, psycopg.connect(source.url) as before:
        query = "SELECT md5(string_agg(a::text, ',' ORDER BY id)) FROM assets a"
        assert restored.execute(query).fetchone() == before.execute(query).fetchone()


def test_two_runs_do_not_take_each_others_database(cluster, source, backups, new_name, monkeypatch):
    dump = take(source.url, backups)

    def filled_while_another_tries(*arguments):
        with pytest.raises(DumpRestoreError, match="another restore fills"):
            restore_dump(dump, cluster.url(), new_name, find_binaries())
        return fill(*arguments)

    fill = dump_restore._fill
    monkeypatch.setattr(dump_restore, "LOCK_TIMEOUT", "100ms")
    monkeypatch.setattr(dump_restore, "_fill", filled_while_another_tries)
    assert restore_dump(dump, cluster.url(), new_name, find_binaries()).row_counts["public.assets"] == 5000


def test_an_existing_database_is_never_overwritten(cluster, source, backups):
    with pytest.raises(DumpRestoreError, match="already"):
        restore_dump(take(source.url, backups), cluster.url(), source.name, find_binaries())
    assert source.execute("SELECT count(*) FROM assets") == [(5000,)]


def test_a_damaged_dump_is_refused_before_anything_is_made(cluster, source, backups, new_name):
    dump = take(source.url, backups)
    content = bytearray(dump.read_bytes())
    content[len(content) // 2] ^= 1
    dump.write_bytes(content)
    before = databases(cluster)
    with pytest.raises(DumpRestoreError, match="is not what was dumped"):
        restore_dump(dump, cluster.url(), new_name, find_binaries())
    assert databases(cluster) == before


def test_a_restore_that_fails_leaves_no_database(cluster, source, backups, new_name):
    role = f"gone_{secrets.token_hex(4)}"
    source.execute(f"CREATE ROLE {role}; ALTER TABLE assets OWNER TO {role}")
    dump = take(source.url, backups)
    source.execute(f"ALTER TABLE assets OWNER TO postgres; DROP ROLE {role}")
    with pytest.raises(DumpRestoreError, match=role):
        restore_dump(dump, cluster.url(), new_name, find_binaries())
    assert not {name for name in databases(cluster) if name.startswith(new_name)}


def test_kill_9_leaves_no_database_under_that_name_and_the_next_run_works(cluster, source, backups, new_name):
    dump = take(source.url, backups)
    for seed in range(KILLS):
        command = [sys.executable, "-c", RESTORE, str(dump), cluster.url(), new_name]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout and process.stdout.readline()
            time.sleep(random.Random(seed).uniform(0.05, 0.6))
            os.kill(process.pid, signal.SIGKILL)
        while renaming(cluster):  # a server ends what it has begun
            time.sleep(0.01)
        if new_name not in databases(cluster):
            restore_dump(dump, cluster.url(), new_name, find_binaries())
        assert {name for name in databases(cluster) if name.startswith(new_name)} == {new_name}
        with psycopg.connect(cluster.url(new_name)) as restored:
            assert restored.execute("SELECT count(*) FROM assets").fetchall() == [(5000,)]
        with psycopg.connect(cluster.url(), autocommit=True) as server:
            server.execute(f"DROP DATABASE {new_name} WITH (FORCE)")


def make_project(owner, user, name):
    owner.execute("SELECT set_config('app.current_user_id', %s, false)", (str(user),))
    return owner.execute("SELECT create_project(%s, '')", (name,)).fetchone()[0]


def test_one_projects_rows(cluster, depot_database, backups, new_name):
    with psycopg.connect(depot_database.owner_url) as owner:
        user = owner.execute(
            "INSERT INTO users (username, studio_role) VALUES ('boss', 'admin') RETURNING id"
        ).fetchone()[0]
        kept, gone = (make_project(owner, user, name) for name in ("kept", "gone"))
        for project in (kept, gone):
            content = secrets.token_bytes(32)
            owner.execute("INSERT INTO blobs VALUES (%s, 1, 1, 0)", (content,))
            owner.execute("INSERT INTO upload_receipts VALUES (%s, %s, %s)", (project, user, content))
    dump = take(make_conninfo(depot_database.dump_url), backups)
    report = restore_dump(dump, cluster.url(), new_name, find_binaries(), project_id=kept)
    for table in ("projects", "branches", "blobs", "upload_receipts"):
        assert report.row_counts[f"public.{table}"] == 1, table
    with psycopg.connect(cluster.url(new_name)) as restored:
        assert restored.execute("SELECT name FROM projects").fetchall() == [("kept",)]
    with pytest.raises(DumpRestoreError, match="has no project"):
        restore_dump(dump, cluster.url(), new_name + "2", find_binaries(), project_id=user)


def test_an_empty_name_is_told_as_such():
    result = CliRunner().invoke(app, ["restore-dump", "", "--database", "x", "--url", "x"])
    assert result.exit_code == 2
    assert "depot-ops backup list" in result.output
