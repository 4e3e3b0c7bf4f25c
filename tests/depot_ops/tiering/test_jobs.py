"""In Dagster: tiering where the settings ask for it, with curves of what each class costs; and its example is valid."""

import os
import re
import subprocess
import sys
from pathlib import Path

import dagster as dg

from depot_ops import jobs, schedules
from depot_ops.assets.tiering import blob_tiering
from depot_ops.checks.tiering import tiering_checks
from depot_ops.settings import TierChoiceSettings, load
from depot_ops.tiering.documents import parse_document
from depot_ops.tiering.evict import Evicted
from depot_ops.tiering.policy import Policy

DOCS = Path(__file__).parents[3] / "docs"
defs = dg.Definitions(
    [blob_tiering], asset_checks=tiering_checks, jobs=jobs.WITH_TIERING, schedules=schedules.WITH_TIERING
)


def run_job() -> dg.ExecuteInProcessResult:
    with dg.DagsterInstance.ephemeral() as instance:
        return defs.resolve_job_def("nightly_tiering").execute_in_process(instance=instance, raise_on_error=False)


def test_what_is_cold_is_moved_and_costs_are_plotted(configured, history):
    sha256 = configured.put("old")
    history.blob(sha256, 200 << 10)
    history.version(sha256, days_old=40)
    done = run_job()
    assert done.success
    assert [check.passed for check in done.get_asset_check_evaluations()] == [True]
    metadata = done.asset_materializations_for_node("blob_tiering")[0].metadata
    figures = {name: value.value for name, value in metadata.items()}
    assert (figures["moved_objects"], figures["standard_objects"], figures["standard_ia_objects"]) == (1, 0, 1)
    assert {"cost_a_month", "standard_cost_a_month", "deep_archive_cost_a_month", "restoring_objects"} <= set(figures)
    assert configured.storage_class(sha256) == "STANDARD_IA"


def test_it_is_there_where_depot_ops_moves(tmp_path, monkeypatch):
    tell = "from depot_ops.definitions import defs; print(*(job.name for job in defs.jobs))"
    environment = {**os.environ, "TIER_POLICY_PATH": str(tmp_path / "policy.yaml")}
    done = subprocess.run([sys.executable, "-c", tell], env=environment, capture_output=True, text=True, check=True)
    assert "nightly_tiering" in done.stdout.split()
    assert not load(TierChoiceSettings).is_explicit
    monkeypatch.setenv("TIER_POLICY_PATH", "policy.yaml")
    assert load(TierChoiceSettings).is_explicit
    monkeypatch.setenv("TIER_MODE", "lifecycle")
    assert not load(TierChoiceSettings).is_explicit
    assert not load(TierChoiceSettings).runs_nightly
    monkeypatch.setenv("TIER_EVICT", "true")
    assert load(TierChoiceSettings).runs_nightly


def test_where_s3_moves_the_disk_is_still_ours(configured, history, monkeypatch):
    sha256 = configured.put("old")
    history.blob(sha256, 200 << 10)
    history.version(sha256, days_old=40)
    monkeypatch.setenv("TIER_MODE", "lifecycle")
    monkeypatch.setenv("TIER_EVICT", "true")
    monkeypatch.setattr("depot_ops.assets.tiering.evict", lambda *, delete: Evicted(evicted_objects=3 * delete))
    done = dg.materialize([blob_tiering])
    assert done.asset_materializations_for_node("blob_tiering")[0].metadata["evicted_objects"].value == 3
    assert configured.storage_class(sha256) == "STANDARD"


def test_it_says_whose_it_is_and_what_red_means():
    job = defs.resolve_job_def("nightly_tiering")
    assert job.description
    assert {"dagster/max_runtime", "owner"} <= set(job.tags)
    spec = next(iter(defs.resolve_all_asset_specs()))
    assert spec.group_name == "blobs" and spec.owners and spec.kinds
    assert all(spec.description and spec.blocking for check in tiering_checks for spec in check.check_specs)


def test_the_example_in_the_documentation_is_valid():
    examples = re.findall(r"```yaml\n(.*?)```", (DOCS / "tiering.md").read_text(), re.S)
    assert examples
    for example in examples:
        assert parse_document(example, Policy, "tiering.md").rules
