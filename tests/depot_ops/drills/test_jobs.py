"""In Dagster: figures that can be plotted, and a week without a proof that is red."""

import dagster as dg
import pytest

from depot_ops.definitions import defs


@pytest.fixture
def configured(depot, monkeypatch):
    for name, value in depot.environment.items():
        monkeypatch.setenv(name, value)
    return depot


def run_job(name: str) -> dg.ExecuteInProcessResult:
    with dg.DagsterInstance.ephemeral() as instance:
        return defs.resolve_job_def(name).execute_in_process(instance=instance, raise_on_error=False)


def passed(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {evaluation.check_name: evaluation.passed for evaluation in result.get_asset_check_evaluations()}


def test_a_week_with_its_drills_is_green_with_figures_and_stays_so_until_they_are_old(configured, monkeypatch):
    configured.back_up()
    configured.dump()
    result = run_job("restore_drills")
    assert result.success
    objectives = ("rto_within_objective", "rpo_within_objective", "drill_age", "logical_drill_age")
    assert passed(result) == dict.fromkeys(objectives, True)
    figures = result.asset_materializations_for_node("restore_drill")[0].metadata
    for name in ("rto", "rpo", "fetch", "replay", "open", "verify"):
        assert isinstance(figures[f"{name}_seconds"], dg.FloatMetadataValue), name
    for name in ("blobs", "blob_bytes", "restored_bytes"):
        assert isinstance(figures[name], dg.IntMetadataValue), name
    assert "canary_restored" in figures["page"].value
    monkeypatch.setenv("DRILL_MAX_AGE_SECONDS", "0.001")
    later = run_job("recovery_objectives")
    assert not later.success
    assert {name for name, value in passed(later).items() if not value} == {"drill_age", "logical_drill_age"}
    assert passed(later)["backup_age"] and passed(later)["base_backup_age"]


def test_a_drill_that_fails_is_red_and_says_why(configured):
    configured.backup_dir.mkdir()
    result = run_job("restore_drills")
    assert not result.success
    errors = [event.step_failure_data.user_failure_data for event in result.filter_events(lambda e: e.is_step_failure)]
    reasons = " ".join(error.description for error in errors if error)
    assert "there is no base backup" in reasons
    assert "there is no dump" in reasons
