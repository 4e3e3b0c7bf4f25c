"""Rules and dashboards name what is really exposed, every alarm leads to a procedure, and each one fires."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

import depot_api.metrics
from depot_api.health import gauges
from depot_ops.metrics.exposition import EXPOSED, STATES, STATES_IN_DAGSTER

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "deploy" / "monitoring"
RUNBOOK = ROOT / "docs" / "runbook.md"
# The procedures that alarms lead to; docs/runbook.md has a heading for each.
RUNBOOK_ANCHORS = {
    *("archiver-backlog", "backup-damaged", "backup-old", "blob-damaged", "check-failed", "database-down"),
    "drill-failed",
    *("merges-stuck", "mirror-lagging", "no-primary", "operations-unknown", "pool-exhausted", "recovery-objectives"),
    *("replica-lagging", "schema-behind", "service-down", "service-errors", "service-slow", "split-brain"),
    *("store-down", "store-full", "wal-gap", "wal-not-arriving"),
}
# Of prometheus-community/postgres_exporter, with its default collectors.
POSTGRES_EXPORTER = {
    *("pg_up", "pg_stat_activity_count", "pg_stat_activity_max_tx_duration", "pg_settings_max_connections"),
    *("pg_stat_database_xact_commit", "pg_stat_database_xact_rollback", "pg_stat_database_blks_hit"),
    *("pg_stat_database_blks_read", "pg_stat_database_deadlocks", "pg_database_size_bytes", "pg_locks_count"),
    "pg_replication_lag_seconds",
}
PROMETHEUS = {"up"}
# Every check whose failure is an alarm of its own.
ALARMS = {exposed.check for exposed in EXPOSED} - {"single_primary"}  # by its count of primaries
NAME = re.compile(r"\b(?:depot|pg)_[a-z0-9_]+|\bup\b")
VALUES = re.compile(r"\"[^\"]*\"")

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian's package prometheus)"
)


def rules() -> list[dict]:
    groups = yaml.safe_load((MONITORING / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def exposed() -> set[str]:
    """By the definitions themselves; test_prometheus.py proves that a scrape has them."""
    text = depot_api.metrics.exposition(None).decode()
    names = set(re.findall(r"^# TYPE (depot_\w+)", text, re.MULTILINE))
    names |= {f"{name}_{part}" for name in names for part in ("bucket", "count", "sum")}
    names |= set(re.findall(r"\"(depot_\w+)\"", Path(gauges.__file__).read_text()))
    names |= {f"depot_ops_dagster_check_{name}" for name, _, _ in STATES_IN_DAGSTER}
    return names | {one.name for one in EXPOSED} | {f"depot_ops_check_{name}" for name, _, _ in STATES}


def dashboards() -> list[Path]:
    return sorted((MONITORING / "grafana" / "dashboards").glob("*.json"))


def unknown_names(expression: str) -> set[str]:
    return set(NAME.findall(VALUES.sub("", expression))) - exposed() - POSTGRES_EXPORTER - PROMETHEUS


def test_rules_name_what_is_exposed():
    assert {rule["alert"]: unknown_names(rule["expr"]) for rule in rules() if unknown_names(rule["expr"])} == {}


@pytest.mark.parametrize("path", dashboards(), ids=lambda path: path.stem)
def test_dashboards_name_what_is_exposed(path):
    panels = json.loads(path.read_text())["panels"]
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    assert expressions
    assert {expression: unknown_names(expression) for expression in expressions if unknown_names(expression)} == {}


def test_every_figure_of_operations_is_on_a_dashboard():
    shown = (MONITORING / "grafana" / "dashboards" / "operations.json").read_text()
    assert [one.name for one in EXPOSED if one.name not in shown] == []


def test_every_check_is_an_alarm():
    """Those that are asked here have one of their own; all others of Dagster's share one, which leaves none out."""
    watched = {check for rule in rules() for check in re.findall(r'check="(\w+)"', rule["expr"])}
    assert ALARMS - watched == set()
    shared = {rule["alert"]: rule["expr"] for rule in rules() if rule["alert"] in ("CheckFailed", "CheckUnknown")}
    assert len(shared) == 2 and "{" not in "".join(shared.values())


def test_every_alarm_says_what_it_means_and_what_to_do():
    for rule in rules():
        assert rule["labels"]["severity"] in {"warning", "critical"}, rule["alert"]
        assert rule["annotations"]["summary"], rule["alert"]
        assert rule["annotations"]["description"], rule["alert"]
    linked = {rule["annotations"]["runbook_url"] for rule in rules()}
    assert linked == {f"docs/runbook.md#{anchor}" for anchor in RUNBOOK_ANCHORS}


@pytest.mark.skipif(not RUNBOOK.exists(), reason="docs/runbook.md is not written yet")
def test_every_alarm_leads_to_a_procedure():
    text = RUNBOOK.read_text()
    headings = {
        re.sub(r"[^\w -]", "", h.lower()).strip().replace(" ", "-") for h in re.findall(r"^#+ (.+)$", text, re.M)
    }
    anchors = headings | set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text))
    assert RUNBOOK_ANCHORS - anchors == set()


def test_every_alarm_has_a_test():
    tested = (MONITORING / "rules_test.yml").read_text()
    assert [rule["alert"] for rule in rules() if f"name: {rule['alert']} fires" not in tested] == []


@needs_promtool
@pytest.mark.parametrize(
    "command", ["check config --syntax-only prometheus.yml", "check rules rules.yml", "test rules rules_test.yml"]
)
def test_promtool_agrees(command):
    done = subprocess.run(
        ["promtool", *command.split()], cwd=MONITORING, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("amtool") is None, reason="amtool is not installed (Debian's prometheus-alertmanager)")
def test_amtool_agrees(tmp_path):
    # Debian's Alertmanager 0.25 does not know url_file, which came with 0.26.
    text = (MONITORING / "alertmanager.yml").read_text()
    (tmp_path / "alertmanager.yml").write_text(re.sub(r"url_file: .*", "url: http://127.0.0.1/", text))
    done = subprocess.run(
        ["amtool", "check-config", "alertmanager.yml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
