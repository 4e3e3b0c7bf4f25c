"""Definitions load anywhere, and say what an on-call person needs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from depot_ops import jobs
from depot_ops.definitions import defs
from depot_ops.merge_runs import merge_execution

REPOSITORY = Path(__file__).parents[3]


def run(arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """In an environment of nothing but what is given."""
    return subprocess.run(arguments, env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def test_definitions_load_with_an_empty_environment():
    done = run([sys.executable, "-W", "error::dagster.BetaWarning", "-c", "import depot_ops.definitions"])
    assert done.returncode == 0, done.stderr


def test_dagster_validates_the_workspace(tmp_path):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = [str(Path(sys.executable).with_name("dagster")), "definitions", "validate", "-w", "workspace.yaml"]
    done = run(command, PATH=path, DAGSTER_HOME=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_two_definitions_have_one_name():
    """Validation does not see it; the webserver does, and then shows nothing at all."""
    assert defs.get_repository_def().get_all_jobs()


def test_an_unknown_time_zone_is_named():
    done = run([sys.executable, "-c", "import depot_ops.definitions"], MAINTENANCE_TIMEZONE="Mars/Olympus")
    assert done.returncode != 0
    assert "MAINTENANCE_TIMEZONE" in done.stderr
    assert "Mars/Olympus" in done.stderr


# Sorted: the order they are loaded in differs between the processes that run the tests.
@pytest.mark.parametrize(
    "spec",
    sorted(defs.resolve_all_asset_specs(), key=lambda spec: spec.key),
    ids=lambda spec: spec.key.to_user_string(),
)
def test_every_asset_says_whose_it_is_and_what_red_means(spec):
    assert spec.group_name not in (None, "default")
    assert spec.owners
    assert spec.kinds
    assert len(spec.description or "") > 80


def test_every_check_and_job_has_a_description():
    checks = [spec for definition in defs.asset_checks or [] for spec in definition.check_specs]
    assert {spec.name for spec in checks} == {
        "restorable_listing",
        "full_read",
        "checksum",
        "row_counts",
        "backup_age",
        "service_health",
        "chain_intact",
        "base_backup_verified",
        "base_backup_age",
        "wal_freshness",
        "wal_continuity",
        "wal_stream",
        "archiver_backlog",
        "rto_within_objective",
        "rpo_within_objective",
        "drill_age",
        "logical_drill_age",
        "scrub_age",
        "blobs_collected",
    }
    assert all(spec.description and spec.blocking for spec in checks)
    names = [job.name for job in (*jobs.ALL, merge_execution)]
    resolved = [defs.resolve_job_def(name) for name in names]
    assert all(job.description and "dagster/max_runtime" in job.tags and "owner" in job.tags for job in resolved)


def test_the_schedules_run_by_themselves_in_the_maintenance_time_zone():
    nightly = defs.resolve_schedule_def("nightly_maintenance_schedule")
    assert (nightly.cron_schedule, nightly.execution_timezone) == ("0 1 * * *", "UTC")
    assert {s.default_status.value for s in defs.schedules or []} == {"RUNNING"}
