"""`depot-ops backup`: exit codes that a cron job can trust, and JSON that a script can read."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from depot_ops.backup_commands import app


@pytest.fixture
def backups(tmp_path, depot_database, cluster, monkeypatch) -> Path:
    monkeypatch.setenv("DEPOT_DUMP_URL", depot_database.dump_url)
    monkeypatch.setenv("BACKUP_DIR", str(tmp_path / "backups"))
    monkeypatch.setenv("DEPOT_PG_BINDIR", str(cluster.binaries.bindir))
    return tmp_path / "backups"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_a_backup_is_taken_verified_and_listed(backups):
    taken = run("logical", "--json")
    assert taken.exit_code == 0, taken.stderr
    file = json.loads(taken.stdout)["taken"][0]["file"]
    verified = run("verify", "--json")
    assert verified.exit_code == 0
    assert [f["status"] for f in json.loads(verified.stdout)["findings"]] == ["healthy"] * 4
    listed = run("list", "--json")
    assert listed.exit_code == 0
    assert [f["figures"]["file"] for f in json.loads(listed.stdout)["findings"]] == [file]
    for command in ("logical", "verify", "list"):
        assert file[:15] in run(command).stdout


def test_a_damaged_backup_exits_1_by_name_or_as_the_newest(backups):
    file = json.loads(run("logical", "--json").stdout)["taken"][0]["file"]
    dump = backups / file
    dump.write_bytes(dump.read_bytes()[:-1])
    assert run("verify").exit_code == 1
    assert run("verify", str(dump)).exit_code == 1
    assert run("list").exit_code == 1


def test_base_backups_are_listed_and_verified_too(estate, cluster, monkeypatch):
    monkeypatch.setenv("BACKUP_DIR", str(estate.backup_dir))
    monkeypatch.setenv("DEPOT_PG_BINDIR", str(cluster.binaries.bindir))
    full = estate.base(0)
    newest = estate.base(1, full)
    listed = run("list", "--json")
    assert listed.exit_code == 0
    assert [f["figures"]["file"] for f in json.loads(listed.stdout)["findings"]] == [full.name, newest.name]
    archive = full / "base.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-1] + b"?")
    verified = run("verify", "--json")
    assert verified.exit_code == 1
    told = {f["figures"].get("file"): f["detail"] for f in json.loads(verified.stdout)["findings"]}
    assert str(archive) in told[full.name]
    (full / "backup.json").unlink()
    assert newest.name in run("verify").stdout
    assert run("list").exit_code == 1


def test_no_backup_at_all_exits_1(backups):
    backups.mkdir()
    assert run("verify").exit_code == 1
    assert run("list").exit_code == 1


def test_what_cannot_be_looked_at_exits_3(backups):
    assert run("verify").exit_code == 3
    assert run("list").exit_code == 3


@pytest.mark.parametrize(("command", "code"), [("logical", 1), ("verify", 3), ("list", 3)])
def test_a_missing_setting_is_named(backups, monkeypatch, command, code):
    monkeypatch.delenv("BACKUP_DIR")
    result = run(command)
    assert result.exit_code == code
    assert "BACKUP_DIR" in result.stderr


def test_a_backup_that_fails_exits_1_without_the_password(backups, monkeypatch):
    monkeypatch.setenv("DEPOT_DUMP_URL", "postgresql://depot_dump:secret-password@127.0.0.1:1/depot")
    result = run("logical", "--json")
    assert result.exit_code == 1
    assert "secret-password" not in result.output


@pytest.mark.parametrize(
    "url",
    ["not an address", "postgresql://u:secret@h/db?keepalives=1&keepalives_idle=9", "postgresql://u:secret@h?x=1"],
)
def test_an_address_that_is_none_exits_1_without_the_password(backups, monkeypatch, url):
    monkeypatch.setenv("DEPOT_DUMP_URL", url)
    result = run("logical")
    assert result.exit_code == 1
    assert "secret" not in result.output
    assert "database address" in result.stderr


def test_prune_says_what_goes_and_why_and_deletes_it_without_dry_run(backups, monkeypatch):
    files = [json.loads(run("logical", "--json").stdout)["taken"][0]["file"] for _ in range(3)]
    for setting in ("MINS", "DAYS", "WEEKS", "MONTHS"):
        monkeypatch.setenv(f"BACKUP_KEEP_{setting}", "0")
    dry = run("prune", "--dry-run")
    assert dry.exit_code == 0
    lines = dry.stdout.splitlines()
    assert [line.split()[:3] for line in lines[:3]] == [
        ["delete", "dump", files[0]],
        ["keep", "dump", files[1]],
        ["keep", "dump", files[2]],
    ]
    assert "one of the newest 2" in lines[2]
    assert "1 of 3 would be deleted" in lines[3]
    assert len(list(backups.glob("*.dump"))) == 3
    done = run("prune", "--json")
    assert done.exit_code == 0
    assert [d["name"] for d in json.loads(done.stdout)["decisions"] if d["action"] == "delete"] == [files[0]]
    assert sorted(path.name for path in backups.glob("*.dump")) == files[1:]


@pytest.mark.parametrize(
    ("name", "value"), [("BACKUP_KEEP_MINIMUM", "0"), ("BACKUP_KEEP_DAYS", "-1"), ("BACKUP_DIR", "")]
)
def test_prune_with_an_unusable_setting_deletes_nothing_and_exits_1(backups, monkeypatch, name, value):
    backups.mkdir()
    monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    result = run("prune")
    assert result.exit_code == 1
    assert name in result.stderr
