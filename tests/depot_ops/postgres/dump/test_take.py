"""A backup appears complete or not at all, and holds exactly one moment of the source."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from depot_ops.evidence import Status, worst
from depot_ops.postgres.dump import (
    BackupRunning,
    DumpFailed,
    VersionMismatch,
    take_logical_backup,
)
from depot_ops.postgres.dump_checks import sha256_of, verify
from depot_ops.postgres.dump_record import find_backups, load_record, record_path

DEADLINE_SECONDS = 30

TAKE = """
import sys
from pathlib import Path
from depot_ops.postgres.binaries import find_binaries
from depot_ops.postgres.dump import BackupError, take_logical_backup
try:
    print(take_logical_backup(sys.stdin.read(), Path(sys.argv[1]), find_binaries(Path(sys.argv[2]))).file)
except BackupError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""

# Everything that pg_dump can be asked to carry and that a count could get wrong.
UNUSUAL = """
CREATE SCHEMA "odd ""schema";
CREATE TABLE "odd ""schema"."a.table (x)" ("column one" text);
INSERT INTO "odd ""schema"."a.table (x)" VALUES (E'two\\nlines'), (E'\\\\.'), (E'\\n\\\\.\\n'), (''), (NULL);
CREATE TABLE no_columns ();
INSERT INTO no_columns DEFAULT VALUES;
CREATE TABLE parent (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text);
CREATE TABLE child () INHERITS (parent);
INSERT INTO parent (note) SELECT 'p' FROM generate_series(1, 10);
INSERT INTO child SELECT g, 'c' FROM generate_series(1, 7) g;
CREATE TABLE parts (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE parts_2026 PARTITION OF parts FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE parts_rest PARTITION OF parts DEFAULT;
CREATE INDEX ON parts (at);
INSERT INTO parts SELECT g, '2026-12-20'::date + g FROM generate_series(1, 30) g;
CREATE TABLE refers (id int, at date, FOREIGN KEY (id, at) REFERENCES parts) PARTITION BY HASH (id);
CREATE TABLE refers_0 PARTITION OF refers FOR VALUES WITH (MODULUS 1, REMAINDER 0);
CREATE UNLOGGED TABLE unlogged (id int UNIQUE);
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
COPY public.users (id, name) FROM stdin;
RETURN NEW; END $$;
CREATE TRIGGER touch BEFORE INSERT ON parts FOR EACH ROW EXECUTE FUNCTION touch();
CREATE VIEW seen AS SELECT * FROM users;
CREATE MATERIALIZED VIEW kept AS SELECT count(*) FROM assets;
CREATE SEQUENCE numbers;
ALTER TABLE parent ENABLE ROW LEVEL SECURITY;
CREATE POLICY nobody ON parent USING (false);
SELECT lo_from_bytea(0, 'large object');
"""


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.005)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.name != ".lock")


@contextmanager
def locked_table(source) -> Iterator[None]:
    """While the block runs, a dump of the source gets no further than its first locks."""
    with psycopg.connect(source.url) as connection:
        connection.execute("LOCK TABLE assets IN ACCESS EXCLUSIVE MODE")
        yield


@contextmanager
def taking(source, backups: Path, cluster) -> Iterator[subprocess.Popen[str]]:
    """A backup in a process of its own, which is the leader of its group."""
    process = subprocess.Popen(
        [sys.executable, "-c", TAKE, str(backups), str(cluster.binaries.bindir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdin
    process.stdin.write(source.url)
    process.stdin.close()
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdout, process.stderr):
            assert stream
            stream.close()


def pg_dumps_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Those that dump: pg_dumpall, and whoever is asked for its version, are gone in a moment."""
    return [child for child in psutil.Process(process.pid).children() if _dumps(child)]


def alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def _dumps(child: psutil.Process) -> bool:
    try:
        return child.name() == "pg_dump" and "--version" not in child.cmdline()
    except psutil.NoSuchProcess:
        return False


def test_a_backup_is_complete_recorded_and_proved(source, cluster, backups):
    record = take_logical_backup(source.url, backups, cluster.binaries)
    dump = backups / record.file
    assert names(backups) == [record.file, record.file + ".json"]
    assert load_record(dump) == record
    assert (record.sha256, record.size_bytes) == (sha256_of(dump), dump.stat().st_size)
    assert record.row_counts == {"public.assets": 5000, "public.users": 100}
    assert record.source_objects["INDEX"] == record.toc_entries["INDEX"] == 1
    assert record.database == source.name
    assert record.server_version.startswith(str(cluster.binaries.major))
    assert record.tool_version == cluster.binaries.version
    assert record.duration_seconds > 0
    assert worst(record.validation) is Status.HEALTHY
    assert dump.stat().st_mode & 0o077 == record_path(dump).stat().st_mode & 0o077 == 0


def test_everything_that_pg_dump_carries_is_counted_alike(source, cluster, backups):
    source.execute(UNUSUAL)
    record = take_logical_backup(source.url, backups, cluster.binaries)
    assert record.row_counts['odd "schema.a.table (x)'] == 5
    assert (record.row_counts["public.parent"], record.row_counts["public.child"]) == (10, 7)
    assert record.row_counts["public.no_columns"] == 1
    assert (record.row_counts["public.parts_2026"], record.row_counts["public.parts_rest"]) == (11, 19)


def test_it_restores_to_the_rows_that_it_recorded(source, cluster, backups):
    source.execute(UNUSUAL)
    record = take_logical_backup(source.url, backups, cluster.binaries)
    source.execute(f"CREATE DATABASE {source.name}_restored")
    restored = cluster.url(f"{source.name}_restored")
    try:
        restore = [str(cluster.binaries.path("pg_restore")), "--exit-on-error", "-d", restored]
        subprocess.run([*restore, str(backups / record.file)], check=True)
        again = take_logical_backup(restored, backups, cluster.binaries)
        assert again.row_counts == record.row_counts
        assert again.source_objects == record.source_objects
    finally:
        source.execute(f"DROP DATABASE {source.name}_restored WITH (FORCE)")


def test_rows_are_counted_in_the_dumped_snapshot_while_a_writer_inserts(source, cluster, backups):
    stop, inserted = threading.Event(), []

    def write() -> None:
        with psycopg.connect(source.url, autocommit=True) as connection:
            while not stop.is_set():
                number = 10_000 + len(inserted)
                connection.execute("INSERT INTO assets VALUES (%s, 1, 'written meanwhile')", (number,))
                inserted.append(number)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        counts = []
        for _ in range(3):
            seen = len(inserted)
            wait_until(lambda seen=seen: len(inserted) > seen + 50)
            counts.append(take_logical_backup(source.url, backups, cluster.binaries).row_counts["public.assets"])
    finally:
        stop.set()
        writer.join()
    assert 5000 < counts[0] < counts[1] < counts[2] < 5000 + len(inserted)


def test_a_policy_that_would_filter_the_dump_fails_it(source, filtered_url, cluster, backups):
    assert take_logical_backup(filtered_url, backups, cluster.binaries).row_counts["public.assets"] == 5000
    before = names(backups)
    source.execute("ALTER TABLE assets ENABLE ROW LEVEL SECURITY")
    source.execute("CREATE POLICY first_ones ON assets USING (id < 10)")
    with pytest.raises(DumpFailed, match="row-level security"):
        take_logical_backup(filtered_url, backups, cluster.binaries)
    assert names(backups) == before


def test_pg_dump_itself_refuses_a_filtered_table(source, filtered_url, cluster, backups, tmp_path):
    # The count refuses first; this is the second wall, should the count ever be let through.
    source.execute("ALTER TABLE assets ENABLE ROW LEVEL SECURITY")
    command = [str(cluster.binaries.path("pg_dump")), "-Fc", "-f", str(tmp_path / "x.dump"), "-d", filtered_url]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "row-level security" in refused.stderr


def test_the_service_role_cannot_take_a_backup_and_the_dump_role_can(depot_database, cluster, backups):
    with pytest.raises(DumpFailed):
        take_logical_backup(depot_database.service_url, backups, cluster.binaries)
    assert names(backups) == []
    record = take_logical_backup(depot_database.dump_url, backups, cluster.binaries)
    assert {"public.users", "public.projects", "public.branch_heads"} <= record.row_counts.keys()
    assert record.toc_entries["POLICY"] > 0


def test_the_password_is_in_no_command_line(source, filtered_url, cluster, backups):
    password = psycopg.conninfo.conninfo_to_dict(filtered_url)["password"]
    with locked_table(source), taking(replace(source, url=filtered_url), backups, cluster) as process:
        wait_until(lambda: len(pg_dumps_of(process)) == 1)
        lines = [*psutil.Process(process.pid).cmdline(), *pg_dumps_of(process)[0].cmdline()]
        assert not [argument for argument in lines if str(password) in argument]


def test_two_at_once_the_second_is_refused_and_the_first_completes(source, cluster, backups):
    with taking(source, backups, cluster) as process:
        with locked_table(source):
            wait_until(lambda: len(pg_dumps_of(process)) == 1)
            with pytest.raises(BackupRunning, match="another backup"):
                take_logical_backup(source.url, backups, cluster.binaries)
            assert find_backups(backups) == []
        assert process.wait(timeout=DEADLINE_SECONDS) == 0
        file = process.stdout.read().strip()
    assert names(backups) == [file, f"{file}.json"]


def test_killed_in_the_middle_leaves_nothing_that_looks_like_a_backup(source, cluster, backups):
    source.execute("INSERT INTO users SELECT g, sha512(g::text::bytea)::text FROM generate_series(1000, 300000) g")
    with taking(source, backups, cluster) as process:
        wait_until(lambda: any(path.stat().st_size > 100_000 for path in backups.glob(".partial-*.dump")))
        dumping = pg_dumps_of(process)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    wait_until(lambda: not any(map(alive, dumping)))
    assert find_backups(backups) == []
    assert [name for name in names(backups) if not name.startswith(".partial-")] == []
    assert len(names(backups)) == 1
    record = take_logical_backup(source.url, backups, cluster.binaries)
    assert names(backups) == [record.file, record.file + ".json"]


def test_an_orphaned_pg_dump_keeps_the_directory_until_it_has_ended(source, cluster, backups):
    with locked_table(source), taking(source, backups, cluster) as process:
        wait_until(lambda: len(pg_dumps_of(process)) == 1)
        orphan = pg_dumps_of(process)[0]
        process.kill()
        process.wait()
        assert orphan.is_running()
        with pytest.raises(BackupRunning):
            take_logical_backup(source.url, backups, cluster.binaries)
    wait_until(lambda: not alive(orphan))
    record = take_logical_backup(source.url, backups, cluster.binaries)
    assert names(backups) == [record.file, record.file + ".json"]


def test_killed_between_the_two_renames_is_no_backup_and_is_cleaned_up(source, dump, cluster, backups):
    whole = names(backups)
    half = "depot-20200101T000000Z.dump"
    shutil.copy(dump, backups / f".partial-{half}")
    shutil.copy(record_path(dump), backups / f"{half}.json")
    assert find_backups(backups) == [dump]
    record = take_logical_backup(source.url, backups, cluster.binaries)
    assert names(backups) == sorted([*whole, record.file, record.file + ".json"])


def test_an_older_pg_dump_is_refused_before_it_starts(source, cluster, backups):
    older = replace(cluster.binaries, major=cluster.binaries.major - 1)
    with pytest.raises(VersionMismatch, match="DEPOT_PG_BINDIR"):
        take_logical_backup(source.url, backups, older)
    assert names(backups) == []


def test_a_server_that_is_gone_is_named_without_the_password(source, cluster, backups):
    with pytest.raises(DumpFailed, match="refused") as raised:
        take_logical_backup(make_conninfo(source.url, port=1, password="hunter2-hunter2"), backups, cluster.binaries)
    assert "hunter2" not in str(raised.value)
    assert names(backups) == []


def test_backups_within_one_second_get_names_of_their_own(source, cluster, backups):
    records = [take_logical_backup(source.url, backups, cluster.binaries) for _ in range(3)]
    assert find_backups(backups) == [backups / record.file for record in records]
    assert len({record.file for record in records}) == 3


def test_a_full_disk_is_said_and_leaves_nothing(source, cluster, tmp_path):
    # A file system of 300 kB, in a mount namespace of the child's own: needs no root where namespaces are allowed.
    mounted = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*mounted, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine allows no mount namespaces")
    source.execute("INSERT INTO users SELECT g, sha512(g::text::bytea)::text FROM generate_series(1000, 20000) g")
    small = tmp_path / "small"
    small.mkdir()
    script = 'mount -t tmpfs -o size=300k none "$1" && "$2" -c "$3" "$1" "$4"; code=$?; ls -A "$1"; exit $code'
    arguments = ["sh", "-c", script, "sh", str(small), sys.executable, TAKE, str(cluster.binaries.bindir)]
    done = subprocess.run([*mounted, *arguments], input=source.url, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "BackupDiskFull: no room is left" in done.stderr
    assert done.stdout.split() == [".lock"]


def test_the_record_alone_rebuilds_the_catalogue(dump, cluster):
    content = json.loads(record_path(dump).read_text())
    assert content["schema_version"] == 3
    assert {"sha256", "size_bytes", "started_at", "finished_at", "row_counts", "toc_entries"} <= content.keys()
    assert worst(verify(dump, cluster.binaries)) is Status.HEALTHY
