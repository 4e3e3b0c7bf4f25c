"""What a drill leaves behind for audit, what is judged by it, and what a terminal and cron see of it."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner, Result

from depot_ops.cli import app
from depot_ops.drills.objectives import OF_WHAT_LIES_HERE, check_objective
from depot_ops.drills.record import (
    DrillKind,
    DrillRecord,
    DrillRecordUnusable,
    DrillResult,
    begin,
    close_killed,
    load_drill,
    publish,
    record_path,
)
from depot_ops.drills.site import sole_workspace
from depot_ops.evidence import Finding, Status
from depot_ops.settings import ObjectiveSettings


def left(backup_dir, result: DrillResult, days_ago: float = 0.0, kind: DrillKind = DrillKind.BASE, **figures):
    moment = datetime.now(UTC) - timedelta(days=days_ago)
    record = begin(kind, "18.6")
    record.label, record.started_at = moment.strftime("%Y%m%dT%H%M%S.%fZ"), moment
    record.result, record.reason, record.figures = result, f"it has {result}", figures
    record.finished_at = None if result is DrillResult.UNFINISHED else moment
    publish(record, backup_dir)
    return record


def judged(backup_dir) -> dict[str, str]:
    settings = ObjectiveSettings(
        backup_dir=backup_dir, rto_objective_seconds=60, rpo_objective_seconds=30, drill_max_age_seconds=7 * 86400
    )
    return {str(objective): str(check_objective(objective, settings).status) for objective in OF_WHAT_LIES_HERE}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_objectives_that_are_kept(tmp_path):
    left(tmp_path, DrillResult.PASSED, rto_seconds=59.0, rpo_seconds=30)
    left(tmp_path, DrillResult.PASSED, kind=DrillKind.LOGICAL)
    assert judged(tmp_path) == dict.fromkeys(map(str, OF_WHAT_LIES_HERE), "healthy")


def test_objectives_that_are_missed(tmp_path):
    left(tmp_path, DrillResult.PASSED, days_ago=7.1, rto_seconds=61.0, rpo_seconds=30.5)
    assert judged(tmp_path) == dict.fromkeys(map(str, OF_WHAT_LIES_HERE), "unhealthy")


def test_a_drill_that_fails_does_not_make_the_last_good_one_younger(tmp_path):
    left(tmp_path, DrillResult.PASSED, days_ago=6, rto_seconds=1, rpo_seconds=1)
    left(tmp_path, DrillResult.FAILED, days_ago=1, rto_seconds=1, rpo_seconds=1)
    assert judged(tmp_path) == {
        "rto_within_objective": "unhealthy",
        "rpo_within_objective": "unhealthy",
        "drill_age": "healthy",
        "logical_drill_age": "unhealthy",
    }


def test_no_drill_is_unhealthy_one_that_runs_is_none_and_what_cannot_be_read_is_unknown(tmp_path):
    assert set(judged(tmp_path).values()) == {"unhealthy"}
    running = left(tmp_path, DrillResult.UNFINISHED)
    assert set(judged(tmp_path).values()) == {"unhealthy"}
    assert set(judged(tmp_path / "gone").values()) == {"unknown"}
    record_path(tmp_path, running.label).write_text("{")
    assert set(judged(tmp_path).values()) == {"unknown"}


def test_a_killed_drill_is_closed_as_failed_and_its_half_written_pages_go(tmp_path):
    running = left(tmp_path, DrillResult.UNFINISHED)
    passed = left(tmp_path, DrillResult.PASSED)
    half = record_path(tmp_path, passed.label).with_name(".partial-x.json-0")
    half.touch()
    close_killed(tmp_path)
    assert load_drill(record_path(tmp_path, running.label)).result is DrillResult.FAILED
    assert load_drill(record_path(tmp_path, passed.label)) == passed
    assert not half.exists()


def test_a_record_of_a_later_version_is_not_guessed_at(tmp_path):
    path = record_path(tmp_path, left(tmp_path, DrillResult.PASSED).label)
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 2}))
    with pytest.raises(DrillRecordUnusable, match="schema version 2"):
        load_drill(path)


def test_pages_show_what_was_found_and_nothing_in_it_is_markup(tmp_path):
    record: DrillRecord = left(tmp_path, DrillResult.FAILED, rto_seconds=1234.5)
    record.findings = [Finding(check="content_intact", status=Status.UNHEALTHY, detail="<script>|x")]
    publish(record, tmp_path)
    path = record_path(tmp_path, record.label)
    page, text = path.with_suffix(".html").read_text(), path.with_suffix(".md").read_text()
    for shown in (page, text):
        assert record.label in shown and "failed" in shown and "1,234.500 s" in shown and "not measured" in shown
    assert "&lt;script&gt;" in page and "<script" not in page and "http" not in page
    assert "<script>\\|x" in text


def test_the_list_exits_by_the_newest(tmp_path, monkeypatch):
    monkeypatch.setenv("BACKUP_DIR", str(tmp_path))
    assert run("drill", "list").exit_code == 1
    left(tmp_path, DrillResult.FAILED, days_ago=2)
    left(tmp_path, DrillResult.PASSED, days_ago=1)
    listed = run("drill", "list")
    assert (listed.exit_code, listed.stdout.count("restore_drill")) == (0, 2)
    left(tmp_path, DrillResult.FAILED)
    found = run("drill", "list", "--json")
    assert found.exit_code == 1
    assert [finding["status"] for finding in json.loads(found.stdout)["findings"]] == [
        "unhealthy",
        "healthy",
        "unhealthy",
    ]
    left(tmp_path, DrillResult.UNFINISHED)
    assert run("drill", "list").exit_code == 3
    monkeypatch.setenv("BACKUP_DIR", str(tmp_path / "gone"))
    assert run("drill", "list").exit_code == 3


def test_what_is_not_set_is_named_and_the_drill_has_failed(monkeypatch, depot):
    for name, value in depot.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("DRILL_DIR")
    missing = run("drill", "run")
    assert missing.exit_code == 1
    assert "DRILL_DIR" in missing.stderr
    monkeypatch.setenv("DRILL_DIR", str(depot.drill_dir))
    unmounted = run("drill", "run")
    assert unmounted.exit_code == 1
    assert str(depot.backup_dir) in unmounted.stderr
    depot.backup_dir.mkdir()
    without = run("drill", "run")
    assert without.exit_code == 1
    assert "there is no base backup" in without.stdout
    depot.back_up()
    passed = run("drill", "run", "--json")
    assert passed.exit_code == 0
    assert json.loads(passed.stdout)["result"] == "passed"
    with sole_workspace(depot.site()):
        assert run("drill", "run").exit_code == 3
