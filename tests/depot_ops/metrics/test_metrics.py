"""What `depot-ops metrics` tells: the checks' own answers; what is not configured is absent, what fails is unknown."""

import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

import depot_ops
from depot_ops.drills.record import DrillKind, DrillResult, begin, publish
from depot_ops.evidence import Finding, Status
from depot_ops.metrics import dagster_checks
from depot_ops.metrics.exposition import EXPOSED, exposition
from depot_ops.metrics.probes import Probe, Watcher, configured_probes
from depot_ops.metrics.seen import Seen
from depot_ops.settings import MetricsSettings

NOBODY = "postgresql://nobody@127.0.0.1:1/none?connect_timeout=2"


def parsed(text: str) -> dict[str, float]:
    return {
        " ".join(
            [sample.name, *(f"{key}={value}" for key, value in sorted(sample.labels.items()) if value)]
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def run(environment: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME") if name in os.environ}
    command = [sys.executable, "-m", "depot_ops", "metrics", *options]
    return subprocess.run(command, env={**kept, **environment}, capture_output=True, text=True, check=False, timeout=60)


def drilled(backup_dir, rto_seconds: float, age: timedelta) -> None:
    record = begin(DrillKind.BASE, "test")
    record.result, record.reason = DrillResult.PASSED, "proved"
    record.finished_at = datetime.now(UTC) - age
    record.figures = {"rto_seconds": rto_seconds, "rpo_seconds": 1.5}
    publish(record, backup_dir)


def test_a_textfile_with_what_is_configured(tmp_path):
    backups, textfile = tmp_path / "backups", tmp_path / "depot.prom"
    backups.mkdir()
    drilled(backups, 42.5, timedelta(hours=3))
    done = run(
        {"BACKUP_DIR": str(backups), "WAL_ARCHIVE_DIR": str(tmp_path / "gone"), "DEPOT_REPLICATION_URL": NOBODY},
        *("--textfile", str(textfile)),
    )
    assert done.returncode == 0, done.stderr
    seen = parsed(textfile.read_text())
    assert [path.name for path in tmp_path.iterdir() if path.name != "backups"] == ["depot.prom"]
    assert textfile.stat().st_mode & 0o777 == 0o644
    assert seen["depot_ops_rto_seconds"] == 42.5
    assert seen["depot_ops_rto_objective_seconds"] == 3600
    assert abs(seen["depot_ops_drill_age_seconds kind=base"] - 3 * 3600) < 60
    assert seen["depot_ops_check_healthy check=rto_within_objective"] == 1
    assert (seen["depot_ops_check_healthy check=backup_age"], seen["depot_ops_check_unknown check=backup_age"]) == (
        0,
        0,
    )
    # What could not be asked is unknown, and its figures are absent.
    assert seen["depot_ops_check_unknown check=wal_continuity"] == 1
    assert seen["depot_ops_check_unknown check=archiver_backlog"] == 1
    assert "depot_ops_wal_gap_segments" not in seen
    # What is not configured is absent.
    assert not [name for name in seen if "mirror" in name or "replica" in name or "service" in name]


def test_every_figure_is_one_that_a_check_has():
    package = Path(depot_ops.__file__).parent
    sources = "".join(path.read_text() for path in package.rglob("*.py") if path.parent.name != "metrics")
    named = {word for one in EXPOSED for word in (one.check, one.figure)}
    assert [word for word in sorted(named) if not re.search(rf"\b{word}\b", sources)] == []


def test_a_setting_that_cannot_be_used_is_named(tmp_path):
    done = run({"BACKUP_DIR": str(tmp_path), "RTO_OBJECTIVE_SECONDS": "soon"}, "--textfile", str(tmp_path / "x.prom"))
    assert (done.returncode, (tmp_path / "x.prom").exists()) == (3, False)
    assert "RTO_OBJECTIVE_SECONDS" in done.stderr


def test_a_probe_that_crashes_is_unknown_and_stops_no_other():
    def crash() -> list[Seen]:
        raise ZeroDivisionError("by zero")

    well = Finding(check="replica_lag", status=Status.HEALTHY, detail="", figures={"lag_bytes": 7, "role": "standby"})
    watcher = Watcher([Probe("scrub_age", crash, 0.0), Probe("replica_lag", lambda: [Seen(well, "b")], 0.0)])
    watcher.refresh()
    seen = parsed(exposition(watcher.seen()))
    assert seen["depot_ops_check_unknown check=scrub_age"] == 1
    assert seen["depot_ops_check_healthy check=replica_lag node=b"] == 1
    assert seen["depot_ops_replica_lag_bytes node=b"] == 7
    assert seen["depot_ops_check_timestamp_seconds check=replica_lag node=b"] == well.checked_at.timestamp()


def test_what_dagsters_checks_found_last(monkeypatch):
    """Of each asset; what was never made is absent, and a webserver that does not answer is unknown."""

    def made(name: str, success: bool, status: str) -> dict[str, object]:
        entries = [{"label": "status", "text": status}, {"label": "size_bytes"}]
        evaluation = {"success": success, "description": None, "metadataEntries": entries}
        return {"name": name, "executionForLatestMaterialization": {"evaluation": evaluation}}

    checks = [
        *(
            made("full_read", True, "healthy"),
            made("checksum", False, "unhealthy"),
            made("row_counts", False, "unknown"),
        ),
        {"name": "backup_age", "executionForLatestMaterialization": None},
    ]
    nodes = [
        {"assetKey": {"path": ["dumps", "depot"]}, "assetChecksOrError": {"checks": checks}},
        {"assetKey": {"path": ["odd"]}, "assetChecksOrError": {}},
    ]
    monkeypatch.setattr(dagster_checks, "ask_dagster", lambda *_: {"assetNodes": nodes})
    monkeypatch.setenv("DAGSTER_URL", "http://127.0.0.1:1")
    watcher = Watcher([probe for probe in configured_probes(MetricsSettings()) if probe.name == "dagster_checks"])
    watcher.refresh()
    seen = parsed(exposition(watcher.seen()))
    told = {
        name.removeprefix("depot_ops_dagster_check_"): value for name, value in seen.items() if "asset=dumps" in name
    }
    assert told == {
        "healthy asset=dumps/depot check=full_read": 1,
        "healthy asset=dumps/depot check=checksum": 0,
        "healthy asset=dumps/depot check=row_counts": 0,
        "unknown asset=dumps/depot check=full_read": 0,
        "unknown asset=dumps/depot check=checksum": 0,
        "unknown asset=dumps/depot check=row_counts": 1,
    }
    assert seen["depot_ops_check_healthy check=dagster_checks"] == 1
    monkeypatch.undo()
    monkeypatch.setenv("DAGSTER_URL", "http://127.0.0.1:1")
    watcher = Watcher([probe for probe in configured_probes(MetricsSettings()) if probe.name == "dagster_checks"])
    watcher.refresh()
    assert parsed(exposition(watcher.seen()))["depot_ops_check_unknown check=dagster_checks"] == 1


def test_an_answer_counts_for_its_period():
    asked = []
    finding = Finding(check="wal_freshness", status=Status.HEALTHY, detail="")

    def ask(name: str) -> list[Seen]:
        asked.append(name)
        return [Seen(finding)]

    def lost() -> list[Seen]:
        asked.append("lost")
        raise FileNotFoundError("no such directory")

    watcher = Watcher(
        [
            Probe("rare", lambda: ask("rare"), 3600.0),
            Probe("often", lambda: ask("often"), 0.0),
            Probe("lost", lost, 0.0),
        ]
    )
    watcher.refresh()
    watcher.refresh()
    assert asked == ["rare", "often", "lost", "often", "lost"]
    assert [one.finding.detail for one in watcher.seen()][-1] == "no such directory"
