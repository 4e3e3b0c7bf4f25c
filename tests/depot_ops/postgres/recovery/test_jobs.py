"""The jobs of base backups and of the log, run as Dagster runs them, on a primary that archives."""

import signal
import subprocess
import sys
import time

import dagster as dg
import pytest

from depot_ops.definitions import defs


@pytest.fixture
def configured(primary, monkeypatch):
    monkeypatch.setenv("DEPOT_REPLICATION_URL", primary.url)
    monkeypatch.setenv("BACKUP_DIR", str(primary.backup_dir))
    monkeypatch.setenv("WAL_ARCHIVE_DIR", str(primary.archive_root))
    monkeypatch.setenv("DEPOT_PG_BINDIR", str(primary.cluster.binaries.bindir))
    spool = ["--spool", primary.cluster.wal_spool, "--interval-seconds", "0.05"]
    collector = subprocess.Popen([sys.executable, "-m", "depot_ops", "wal", "collect", *spool])
    try:
        primary.execute("SELECT pg_switch_wal()")
        deadline = time.monotonic() + 60
        while not primary.archive_root.is_dir():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield primary
    finally:
        collector.send_signal(signal.SIGTERM)
        assert collector.wait() == 0


def run(job: str, *assets: str) -> dg.ExecuteInProcessResult:
    """All of the job, or of these assets what it does."""
    selection = [dg.AssetKey(asset) for asset in assets] or None
    return defs.resolve_job_def(job).execute_in_process(raise_on_error=False, asset_selection=selection)


def checks(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {check.check_name: check.passed for check in result.get_asset_check_evaluations()}


def test_full_then_incremental(configured, incremental):
    result = run("full_backup", "base_backup")
    assert result.success
    assert checks(result) == {"chain_intact": True, "base_backup_verified": True, "base_backup_age": True}
    second = run("incremental_backup")
    assert second.success
    metadata = second.asset_materializations_for_node("base_backup")[0].metadata
    assert metadata["kind"].value == incremental


def test_a_damaged_chain_is_red_and_names_it(configured):
    backup = configured.back_up()
    backup.archive.write_bytes(backup.archive.read_bytes()[:-1])
    result = run("full_backup", "base_backup")
    assert not result.success
    assert checks(result)["chain_intact"] is False


def test_a_gap_in_the_log_is_red(configured):
    configured.back_up()
    for _ in range(3):
        configured.insert(1)
        passed = {"wal_freshness": True, "wal_continuity": True, "wal_stream": True, "archiver_backlog": True}
        assert checks(run("wal_check")) == passed
    victim = [name for name in configured.archive.names() if name.is_whole_segment][-2]
    configured.archive.file_path(victim).unlink()
    configured.archive.record_path(victim).unlink()
    result = run("wal_check")
    assert not result.success
    evaluations = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert evaluations["wal_continuity"].passed is False
    assert victim.name in (evaluations["wal_continuity"].description or "")


def test_the_checklist_leaves_a_document(configured, monkeypatch):
    monkeypatch.setenv("DEPOT_DUMP_URL", configured.url)
    result = defs.resolve_job_def("dr_checklist").execute_in_process(
        run_config={"ops": {"walk_checklist": {"config": {"signed_by": "Ada"}}}}, raise_on_error=False
    )
    assert not result.success  # no standby and no failover document: unknown signs nothing off
    (document,) = (configured.backup_dir / "checklists").glob("*.json")
    assert '"signed_off": false' in document.read_text()
