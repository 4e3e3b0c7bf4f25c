"""The report in Dagster: red for what is unhealthy, a warning for what is unknown."""

import dagster as dg
import pytest

from depot_ops.definitions import defs
from depot_ops.postgres.dump_record import find_backups


@pytest.fixture
def environment(pair, backup_dir, health_url, monkeypatch):
    monkeypatch.setenv("BACKUP_DIR", str(backup_dir))
    monkeypatch.setenv("WAL_ARCHIVE_DIR", str(pair.archive_root))
    monkeypatch.setenv("DEPOT_REPLICA_URL", pair.standby.url())
    monkeypatch.setenv("DEPOT_URL", health_url)
    pair.collect()
    pair.stream()


def run_job() -> tuple[dg.ExecuteInProcessResult, dg.AssetCheckEvaluation]:
    with dg.DagsterInstance.ephemeral() as instance:
        result = defs.resolve_job_def("nightly_report").execute_in_process(instance=instance, raise_on_error=False)
    (evaluation,) = result.get_asset_check_evaluations()
    return result, evaluation


def test_all_healthy_is_green_with_figures(environment):
    result, evaluation = run_job()
    assert result.success
    assert evaluation.passed, evaluation.description
    figures = result.asset_materializations_for_node("ops_report")[0].metadata
    assert (figures["status"].value, figures["healthy"].value) == ("healthy", 9)
    assert figures["report"].value["schema_version"] == 1


def test_what_is_unhealthy_is_red_and_named(environment, backup_dir):
    dump = find_backups(backup_dir)[-1]
    dump.write_bytes(dump.read_bytes()[:-1])
    result, evaluation = run_job()
    assert not result.success
    assert not evaluation.passed
    assert "checksum" in evaluation.description


def test_what_is_not_configured_is_a_warning(environment, monkeypatch):
    monkeypatch.delenv("DEPOT_REPLICA_URL")
    result, evaluation = run_job()
    assert result.success
    assert not evaluation.passed
    assert evaluation.severity is dg.AssetCheckSeverity.WARN
    assert "--replica-url" in evaluation.description
