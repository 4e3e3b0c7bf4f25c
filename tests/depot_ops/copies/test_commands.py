"""`depot-ops backup copy` and what looks at the copy: exit codes that cron can trust, JSON that a script can read."""

import json

import pytest
from typer.testing import CliRunner, Result

from depot_ops.backup_commands import app


@pytest.fixture
def filled(estate, place, place_dir, monkeypatch):
    monkeypatch.setenv("BACKUP_DIR", str(estate.backup_dir))
    monkeypatch.setenv("WAL_ARCHIVE_DIR", str(estate.archive.root))
    monkeypatch.setenv("BACKUP_COPY_URL", place_dir.as_uri())
    estate.nights(20)
    estate.drill(estate.base(0))
    estate.log(14)
    return estate


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_copied_verified_listed_and_pruned(filled):
    copied = run("copy", "--json")
    assert copied.exit_code == 0, copied.stderr
    assert json.loads(copied.stdout)["units"] == {"base_backup": 1, "dump": 20, "wal": 15, "drill": 1}
    assert "0 copied, 0 bytes, 0 refused; 37 are to be there" in run("copy").stdout
    verified = json.loads(run("copy", "--verify", "--json").stdout)
    assert verified["status"] == "healthy"
    assert len(verified["findings"]) == 20 + 1 + 1
    assert len(json.loads(run("list", "--from-copy", "--json").stdout)["findings"]) == 20 + 1
    here = json.loads(run("prune", "--json").stdout)["decisions"]
    told = json.loads(run("prune", "--at-copy", "--dry-run", "--json").stdout)
    # Log goes there only once a drill has restored from there.
    gone = [d["name"] for d in here if d["action"] == "delete" and d["name"].endswith(".dump")]
    assert [d["name"] for d in told["decisions"] if d["action"] == "delete"] == gone
    assert gone
    assert run("prune", "--at-copy").exit_code == 0
    assert "0 of " in run("prune", "--at-copy").stdout


def test_damage_there_exits_1_until_it_is_repaired(filled, place_dir):
    run("copy")
    dump = next(place_dir.rglob("*.dump"))
    dump.write_bytes(b"swor")
    verified = run("copy", "--verify")
    assert verified.exit_code == 1
    assert dump.name in verified.stdout
    repaired = run("copy", "--repair")
    assert repaired.exit_code == 0
    assert f"removed backups/{dump.name}" in repaired.stdout
    assert run("copy", "--verify").exit_code == 0


def test_what_is_refused_exits_1_by_name(filled):
    dump = next(filled.backup_dir.glob("*.dump"))
    dump.write_bytes(b"swor")
    refused = run("copy")
    assert refused.exit_code == 1
    assert f"refused dump {dump.name}" in refused.stdout


@pytest.mark.parametrize("command", [["copy"], ["copy", "--verify"], ["list", "--from-copy"]])
def test_a_missing_setting_is_named_and_nothing_is_known(filled, monkeypatch, command):
    monkeypatch.delenv("BACKUP_COPY_URL")
    done = run(*command)
    assert done.exit_code == 3
    assert "BACKUP_COPY_URL" in done.stderr


def test_a_place_without_backups_exits_1(filled):
    assert run("list", "--from-copy").exit_code == 1
