"""The copy as Dagster runs it, and only where a second place is named."""

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from depot_ops.assets.backup_copy import backup_copy
from depot_ops.checks.backup_copy import backup_copy_checks
from depot_ops.definitions import defs
from depot_ops.jobs import backup_copies

REPOSITORY = Path(__file__).parents[3]
LOADED = """
from depot_ops.definitions import defs
names = {definition.name for definition in (*defs.get_repository_def().get_all_jobs(), *defs.schedules)}
print(*sorted(name for name in names if "cop" in name))
"""


@pytest.fixture
def run(estate, place_dir, place, monkeypatch):
    monkeypatch.setenv("BACKUP_DIR", str(estate.backup_dir))
    monkeypatch.setenv("WAL_ARCHIVE_DIR", str(estate.archive.root))
    monkeypatch.setenv("BACKUP_COPY_URL", place_dir.as_uri())
    estate.drill(estate.base(0))
    estate.nights(3)
    estate.log(14)
    with_copy = dg.Definitions(assets=[backup_copy], asset_checks=backup_copy_checks, jobs=[backup_copies])
    return lambda: with_copy.resolve_job_def(backup_copies.name).execute_in_process(raise_on_error=False)


def test_a_pass_with_figures_and_its_checks(run, estate):
    result = run()
    assert result.success
    assert {check.check_name: check.passed for check in result.get_asset_check_evaluations()} == {
        "copy_complete": True,
        "copy_age": True,
    }
    metadata = result.asset_materializations_for_node("backup_copy")[0].metadata
    assert metadata["copied"].value == 1 + 1 + 3 + 15
    assert metadata["copied_bytes"].value > 0
    assert run().asset_materializations_for_node("backup_copy")[0].metadata["copied"].value == 0


def test_what_is_refused_is_red_and_named(run, estate):
    night = sorted(estate.backup_dir.glob("*.dump"))[0]
    night.write_bytes(b"swor")
    result = run()
    assert not result.success
    assert night.name in result.get_step_failure_events()[0].step_failure_data.error.message


def test_it_is_there_only_where_a_place_is_named():
    assert backup_copies.name not in {job.name for job in defs.get_repository_def().get_all_jobs()}
    environment = {"PATH": os.environ["PATH"], "BACKUP_COPY_URL": "file:///srv/second"}
    command = [sys.executable, "-c", LOADED]
    done = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["backup_copies", "backup_copies_schedule", "copy_drills", "copy_drills_schedule"]
