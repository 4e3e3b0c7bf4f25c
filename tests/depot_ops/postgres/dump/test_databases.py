"""Several databases, both formats, and the roles that a dump needs: each proved, and no failure holds up another."""

import json
import secrets
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr

from depot_ops.evidence import Status, worst
from depot_ops.postgres.cluster_globals import GlobalsIncomplete, restore_roles
from depot_ops.postgres.dump import DumpOptions, take_logical_backup, take_logical_backups
from depot_ops.postgres.dump_checks import verify, verify_newest
from depot_ops.postgres.dump_databases import dumped_databases
from depot_ops.postgres.dump_record import DumpFormat, find_backups, glance, load_record, record_path
from depot_ops.postgres.dump_restore import restore_dump
from depot_ops.postgres.prune import Retention, prune
from depot_ops.postgres.retention import KeepPolicy
from depot_ops.settings import DumpChoiceSettings, SettingsError

DIRECTORY = DumpOptions(DumpFormat.DIRECTORY, jobs=2)
LITTLE = KeepPolicy(minutes=0, days=1, weeks=0, months=0, minimum=1)


def test_a_directory_is_one_proved_thing(cluster, source, backups):
    dumps = [backups / take_logical_backup(source.url, backups, cluster.binaries, DIRECTORY).file for _ in range(2)]
    assert all(dump.is_dir() for dump in dumps)
    assert worst(verify(dumps[1], cluster.binaries)) is Status.HEALTHY
    assert {glance(dump).status for dump in find_backups(backups)} == {Status.HEALTHY}
    database = f"restored_{secrets.token_hex(4)}"
    restored = restore_dump(dumps[1], source.url, database, cluster.binaries)
    source.execute(f"DROP DATABASE {database}")
    assert restored.row_counts == {"public.assets": 5000, "public.users": 100}
    pruned = prune(Retention(backups, None, LITTLE, LITTLE))
    assert [decision.name for decision in pruned.deleted] == [dumps[0].name]
    assert pruned.freed_bytes > 0
    assert sorted(path.name for path in backups.glob("*depot-*")) == [dumps[1].name, record_path(dumps[1]).name]


@pytest.mark.parametrize("damage", ["flip", "lose", "add"])
def test_damage_to_one_file_of_a_directory_is_named(cluster, source, backups, damage):
    dump = backups / take_logical_backup(source.url, backups, cluster.binaries, DIRECTORY).file
    data = max(dump.iterdir(), key=lambda file: file.stat().st_size)
    if damage == "flip":
        content = bytearray(data.read_bytes())
        content[len(content) // 2] ^= 1
        data.write_bytes(content)
    elif damage == "lose":
        data.unlink()
    else:
        (dump / "9999.dat").touch()
    findings = {finding.check: finding for finding in verify(dump, cluster.binaries)}
    assert findings["checksum"].status is Status.UNHEALTHY
    if damage == "flip":
        assert data.name in findings["checksum"].detail


def test_one_database_that_fails_stops_none_of_the_others(cluster, source, backups):
    absent = make_conninfo(source.url, dbname="absent")
    taken, not_taken = take_logical_backups([absent, source.url, cluster.url("postgres")], backups, cluster.binaries)
    assert [record.database for record in taken] == [source.name, "postgres"]
    assert [failure.database for failure in not_taken] == ["absent"]
    assert '"absent" does not exist' in not_taken[0].reason


def test_the_newest_of_each_database_is_proved(cluster, source, backups):
    take_logical_backups([source.url, source.url, cluster.url("postgres")], backups, cluster.binaries)
    older, newest, _ = find_backups(backups)
    older.write_bytes(b"")  # not the newest of any database
    assert worst(verify_newest(backups)) is Status.HEALTHY
    newest.write_bytes(b"")
    damaged = [finding for finding in verify_newest(backups, ["checksum"]) if finding.status is Status.UNHEALTHY]
    assert [finding.figures["database"] for finding in damaged] == [source.name]
    record_path(newest).write_bytes(b"")  # nobody knows whose it is: it may have been the newest of one
    assert worst(verify_newest(backups)) is Status.UNHEALTHY


def test_roles_are_kept_without_passwords_and_made_where_they_lack(cluster, source, backups):
    owner, member = f'Own"er_{secrets.token_hex(4)}', f"member_{secrets.token_hex(4)}"
    quoted = '"' + owner.replace('"', '""') + '"'
    source.execute(f"CREATE ROLE {quoted} LOGIN PASSWORD 'geheim' CONNECTION LIMIT 7; CREATE ROLE {member}")
    source.execute(f"GRANT {member} TO {quoted}; ALTER TABLE assets OWNER TO {quoted}")
    record = take_logical_backup(source.url, backups, cluster.binaries)
    assert record.globals
    assert {owner, member} <= set(record.globals.roles)
    assert "SCRAM" not in record.globals.sql
    source.execute(f"ALTER TABLE assets OWNER TO CURRENT_USER; DROP ROLE {quoted}, {member}")
    database = f"restored_{secrets.token_hex(4)}"
    restored = restore_dump(backups / record.file, source.url, database, cluster.binaries, with_roles=True)
    assert set(restored.roles_created) == {owner, member}
    limit = "SELECT rolconnlimit, rolpassword IS NULL FROM pg_authid WHERE rolname = '" + owner + "'"
    assert source.execute(limit) == [(7, True)]
    assert source.execute(f"SELECT pg_has_role('{owner}', '{member}', 'MEMBER')") == [(True,)]
    source.execute(f"DROP DATABASE {database}")
    source.execute(f"DROP ROLE {quoted}, {member}")


def test_roles_that_are_there_stay_as_they_are_and_a_tablespace_is_asked_for(cluster, source, backups):
    role = f"kept_{secrets.token_hex(4)}"
    source.execute(f"CREATE ROLE {role} LOGIN")
    saved = take_logical_backup(source.url, backups, cluster.binaries).globals
    assert saved
    source.execute(f"ALTER ROLE {role} NOLOGIN")
    space = saved.model_copy(
        update={"sql": saved.sql + "CREATE TABLESPACE \"fast disk\" OWNER postgres LOCATION '/f';\n"}
    )
    with psycopg.connect(source.url, autocommit=True) as server:
        assert restore_roles(server, saved) == []
        with pytest.raises(GlobalsIncomplete, match="fast disk"):
            restore_roles(server, space)
    assert source.execute(f"SELECT rolcanlogin FROM pg_roles WHERE rolname = '{role}'") == [(False,)]
    source.execute(f"DROP ROLE {role}")


def test_hashes_of_passwords_are_kept_when_asked_for(cluster, source, backups):
    record = take_logical_backup(source.url, backups, cluster.binaries, DumpOptions(role_passwords=True))
    assert record.globals
    assert record.globals.has_passwords
    assert "SCRAM-SHA-256" in record.globals.sql


def test_statements_for_roles_that_were_changed_are_found(cluster, dump: Path):
    record = json.loads(record_path(dump).read_text())
    record["globals"]["sql"] += "ALTER ROLE depot_dump SUPERUSER;\n"
    record["record_sha256"] = ""
    record_path(dump).write_text(json.dumps(record))
    assert load_record(dump).globals
    findings = {finding.check: finding.status for finding in verify(dump, cluster.binaries)}
    assert findings["checksum"] is Status.UNHEALTHY


def choice(names: str = "", urls: str = "") -> DumpChoiceSettings:
    return DumpChoiceSettings(backup_databases=names, backup_database_urls=SecretStr(urls))


def test_databases_are_named_on_the_same_server_and_on_others():
    depot, other = "postgresql://depot_dump:secret@db/depot", "postgresql://dagster:geheim@other/dagster"
    assert dumped_databases(depot, choice()) == [depot]
    urls = dumped_databases(depot, choice("reports, tracker", other))
    assert urls[0] == depot
    assert "dbname=reports" in urls[1]
    assert "host=db" in urls[2]
    assert urls[3] == other
    assert "geheim" not in repr(choice("", other))


@pytest.mark.parametrize(
    ("names", "urls"), [("depot", ""), ("", "postgresql://x@y/depot"), ("", "postgresql://geheim@y"), ("", "geheim")]
)
def test_databases_that_cannot_be_told_apart_are_refused(names, urls):
    with pytest.raises(SettingsError) as refused:
        dumped_databases("postgresql://depot_dump:secret@db/depot", choice(names, urls))
    assert "secret" not in str(refused.value)
    assert "geheim" not in str(refused.value)
