"""The commands from the first backup to a restored cluster: exit codes for cron, JSON for scripts."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from depot_ops.cli import app
from depot_ops.postgres.recovery_source import SpooledArchive
from depot_ops.postgres.wal.archive import ArchiveError
from depot_ops.postgres.wal.collector import collect, spooled
from depot_ops.postgres.wal.progress import check_freshness


def utc(moment: datetime) -> str:
    """As people write it, and as the server does not take it."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def configured(primary, monkeypatch):
    monkeypatch.setenv("DEPOT_REPLICATION_URL", primary.url)
    monkeypatch.setenv("BACKUP_DIR", str(primary.backup_dir))
    monkeypatch.setenv("BASE_BACKUP_MAX_RATE", "1024M")
    monkeypatch.setenv("WAL_ARCHIVE_DIR", str(primary.archive_root))
    monkeypatch.setenv("WAL_SPOOL_DIR", str(primary.cluster.wal_spool))
    monkeypatch.setenv("DEPOT_PG_BINDIR", str(primary.cluster.binaries.bindir))
    return primary


def statuses(result: Result) -> dict[str, str]:
    return {finding["check"]: finding["status"] for finding in json.loads(result.stdout)["findings"]}


def test_from_a_backup_to_a_restored_cluster(configured, work_dir, incremental):
    full = json.loads(run("backup", "full", "--json").stdout)
    moment = configured.insert(2)
    second = json.loads(run("backup", str(incremental), "--json").stdout)
    assert second["parent"] == full["label"]
    chains = run("backup", "chains", "--verify", "--json")
    assert chains.exit_code == 0
    assert statuses(chains) == {"chain_intact": "healthy", "base_backup_verified": "healthy"}
    configured.insert(1)
    configured.execute("SELECT pg_switch_wal()")
    deadline = time.monotonic() + 30
    while run("wal", "check", "--arrival-seconds", "0", "--json").exit_code != 0:
        assert time.monotonic() < deadline
        assert run("wal", "collect", "--once").exit_code == 0
    listed = run("wal", "list", "--json")
    assert (listed.exit_code, statuses(listed)) == (0, {"timeline 1": "healthy"})
    restored = run("restore", "--to", work_dir / "restored", "--target-time", utc(moment), "--verify", "--json")
    assert restored.exit_code == 0, restored.stderr
    assert json.loads(restored.stdout)["backups"] == [full["label"]]
    latest = run("restore", "--to", work_dir / "latest", "--latest")
    assert latest.exit_code == 0
    assert second["label"] in latest.stdout


def finish_segment(primary) -> Path:
    """Nobody collects it."""
    primary.insert(1)
    ((segment,),) = primary.execute("SELECT pg_walfile_name(pg_current_wal_lsn())")
    primary.execute("SELECT pg_switch_wal()")
    deadline = time.monotonic() + 30
    waiting = primary.cluster.wal_spool / segment
    while not waiting.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return waiting


def test_what_is_collected_while_the_spool_is_listed_is_taken_from_the_archive(configured, monkeypatch):
    configured.archive_all()
    waiting = finish_segment(configured)
    archive = SpooledArchive(configured.archive, waiting.parent)

    def listed_and_collected(spool: Path):
        names = spooled(spool)
        collect(spool, configured.archive_root)
        return names

    monkeypatch.setattr("depot_ops.postgres.recovery_source.spooled", listed_and_collected)
    assert waiting.name in {name.name for name in archive.names()}
    assert not waiting.exists()


def test_what_waits_in_the_spool_is_restored_too_and_stays_there(configured, work_dir):
    run("backup", "full")
    configured.archive_all()
    waiting = finish_segment(configured)
    segment = waiting.name
    restored = run("restore", "--to", work_dir / "restored", "--latest", "--json")
    assert restored.exit_code == 0, restored.stderr
    report = json.loads(restored.stdout)
    assert (report["last_segment"], report["spooled_segments"]) == (segment, 1)
    assert segment not in {name.name for name in configured.archive.names()}
    whole = waiting.read_bytes()
    waiting.write_bytes(whole[:-1])
    refused = run("restore", "--to", work_dir / "again", "--latest")
    assert (refused.exit_code, str(waiting) in refused.stderr) == (1, True)
    waiting.write_bytes(whole)
    foreign = waiting.with_name("000000010000000000000077")
    for content in (whole[:24] + bytes(8) + whole[32:], bytes(16 << 20)):
        foreign.write_bytes(content)
        refused = run("restore", "--to", work_dir / "again", "--latest")
        assert (refused.exit_code, str(foreign) in refused.stderr) == (1, True), refused.stderr
    foreign.unlink()
    assert run("wal", "collect", "--once").exit_code == 0
    report = json.loads(run("restore", "--to", work_dir / "again", "--latest", "--json").stdout)
    assert (report["last_segment"], report["spooled_segments"]) == (segment, 0)


def test_an_archive_that_goes_away_is_told_and_no_traceback(configured, monkeypatch):
    def gone(*_):
        raise ArchiveError("the archive could not be listed")

    monkeypatch.setattr("depot_ops.postgres.in_place._archive_history", gone)
    run("backup", "full")
    configured.archive_all()
    restored = run("restore", "--in-place", configured.cluster.data, "--latest", "--force")
    assert restored.exit_code == 1
    assert isinstance(restored.exception, SystemExit)
    assert "is restored and complete" in restored.stderr
    assert "could not be listed" in restored.stderr


def test_a_gap_exits_1_everywhere(configured, work_dir):
    run("backup", "full")
    for _ in range(3):
        configured.insert(1)
        configured.archive_all()
    victim = [name for name in configured.archive.names() if name.is_whole_segment][-2]
    configured.archive.file_path(victim).unlink()
    configured.archive.record_path(victim).unlink()
    for command in (("wal", "check"), ("wal", "list"), ("restore", "--to", work_dir / "restored", "--latest")):
        assert run(*command).exit_code == 1
    assert victim.name in run("wal", "check").stdout


def test_a_foreign_file_in_the_spool_exits_1(configured):
    configured.archive_all()
    (configured.cluster.wal_spool / "000000010000000000000077").write_bytes(bytes(16 << 20))
    collected = run("wal", "collect", "--once", "--json")
    assert collected.exit_code == 1
    assert [refusal["name"] for refusal in json.loads(collected.stdout)["refused"]] == ["000000010000000000000077"]


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("wal", "check"), 3),
        (("wal", "list"), 3),
        (("backup", "chains"), 3),
        (("restore", "--to", "/nonexistent/x", "--latest"), 1),
        (("restore", "--to", "/nonexistent/x"), 2),
        (("restore", "--to", "/nonexistent/x", "--latest", "--target-name", "x"), 2),
        (("restore", "--to", "/nonexistent/x", "--target-time", "2026-11-23T01:00:00"), 2),
        (("restore", "--to", "/nonexistent/x", "--target-time", "yesterday"), 2),
        (("restore", "--to", "/nonexistent/x", "--target-lsn", "latest"), 2),
    ],
)
def test_what_cannot_be_answered(tmp_path, monkeypatch, cluster, command, code):
    monkeypatch.setenv("BACKUP_DIR", str(tmp_path / "backups"))
    monkeypatch.setenv("WAL_ARCHIVE_DIR", str(tmp_path / "archive"))
    monkeypatch.setenv("DEPOT_PG_BINDIR", str(cluster.binaries.bindir))
    assert run(*command).exit_code == code


def test_the_collector_goes_on_until_it_is_stopped(configured):
    command = [sys.executable, "-m", "depot_ops", "wal", "collect"]
    process = subprocess.Popen([*command, "--interval-seconds", "0.1"], env=os.environ)
    try:
        first = run("wal", "check", "--json")  # of a server of which nothing has arrived yet
        assert (first.exit_code, set(statuses(first).values())) == (0, {"healthy"}), first.stdout + first.stderr
        for _ in range(2):
            configured.insert(1)
            assert check_freshness(configured.url, configured.archive).status == "healthy"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
