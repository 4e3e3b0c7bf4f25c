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
    file = json.loads(taken.stdout)["file"]
    verified = run("verify", "--json")
    assert verified.exit_code == 0
    assert [f["status"] for f in json.loads(verified.stdout)["findings"]] == ["healthy"] * 4
    listed = run("list", "--json")
    assert listed.exit_code == 0
    assert [f["figures"]["file"] for f in json.loads(listed.stdout)["findings"]] == [file]
    for command in ("logical", "verify", "list"):
        assert file[:15] in run(command).stdout


def test_a_damaged_backup_exits_1_by_name_or_as_the_newest(backups):
    file = json.loads(run("logical", "--json").stdout)["file"]
    dump = backups / file
    dump.write_bytes(dump.read_bytes()[:-1])
    assert run("verify").exit_code == 1
    assert run("verify", str(dump)).exit_code == 1
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
