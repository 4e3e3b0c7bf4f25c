"""Old history goes, and nothing else, from the same storage that the stack uses."""

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
import psycopg
import pytest
import yaml
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import TickData, TickStatus
from psycopg import sql

from depot_ops.definitions import defs
from depot_ops.maintenance import prune

OLD = timedelta(days=91)


@pytest.fixture
def storage_url(cluster) -> Iterator[str]:
    name = f"dagster_{secrets.token_hex(4)}"
    with psycopg.connect(cluster.url(), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield cluster.url(name)
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def instance(storage_url, tmp_path, monkeypatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("DAGSTER_PG_URL", storage_url.replace("postgresql://", "postgresql+psycopg2://"))
    settings = {"storage": {"postgres": {"postgres_url": {"env": "DAGSTER_PG_URL"}}}, "telemetry": {"enabled": False}}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(settings))
    with dg.DagsterInstance.from_config(str(tmp_path)) as opened:
        yield opened


@dg.asset(check_specs=[dg.AssetCheckSpec("fine", asset="checked")])
def checked() -> dg.MaterializeResult:
    return dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=True)])


def run_id(instance: dg.DagsterInstance) -> str:
    return dg.materialize([checked], instance=instance).run_id


def tick(instance: dg.DagsterInstance, moment: datetime) -> None:
    instance.create_tick(
        TickData(
            instigator_origin_id="gone",
            instigator_name="a_schedule_of_old",
            instigator_type=InstigatorType.SCHEDULE,
            status=TickStatus.SUCCESS,
            timestamp=moment.timestamp(),
            run_ids=["a run"],
            selector_id="gone",
        )
    )


def age(storage_url: str) -> None:
    """Make everything that is stored 91 days old."""
    columns = {
        "runs": ("create_timestamp", "update_timestamp"),
        "event_logs": ("timestamp",),
        "asset_check_executions": ("create_timestamp",),
    }
    with psycopg.connect(storage_url) as connection:
        for table, names in columns.items():
            for name in names:
                statement = sql.SQL("UPDATE {} SET {name} = {name} - interval '91 days'")
                connection.execute(statement.format(sql.Identifier(table), name=sql.Identifier(name)))


def rows(storage_url: str, table: str) -> int:
    with psycopg.connect(storage_url) as connection:
        return connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone()[0]


def test_old_runs_events_results_and_ticks_go_and_new_ones_stay(instance, storage_url):
    old_run = run_id(instance)
    instance.report_runless_asset_event(dg.AssetMaterialization("elsewhere", tags={"a": "b"}))
    age(storage_url)
    tick(instance, datetime.now(UTC) - OLD)
    new_run = run_id(instance)
    instance.report_runless_asset_event(dg.AssetMaterialization("elsewhere"))
    tick(instance, datetime.now(UTC))

    pruned = prune(instance, keep_days=90)

    assert (pruned.runs, pruned.runless_events, pruned.check_results, pruned.ticks) == (1, 1, 1, 1)
    assert [run.run_id for run in instance.get_runs()] == [new_run]
    assert not instance.all_logs(old_run)
    assert instance.all_logs(new_run)
    assert rows(storage_url, "asset_check_executions") == 1
    assert rows(storage_url, "job_ticks") == 1
    again = prune(instance, keep_days=90)
    assert (again.runs, again.runless_events, again.check_results, again.ticks) == (0, 0, 0, 0)


def test_a_run_that_has_not_ended_stays_however_old(instance, storage_url):
    run = instance.create_run_for_job(defs.resolve_job_def("dagster_maintenance"))
    age(storage_url)
    assert prune(instance, keep_days=90).runs == 0
    assert instance.has_run(run.run_id)


def test_the_job_prunes_and_reports_its_figures(instance, storage_url, monkeypatch):
    run_id(instance)
    age(storage_url)
    monkeypatch.setenv("DAGSTER_KEEP_RUNS_DAYS", "30")
    result = defs.resolve_job_def("dagster_maintenance").execute_in_process(instance=instance)
    output = next(e for e in result.all_events if e.is_successful_output)
    figures = {name: value.value for name, value in output.event_specific_data.metadata.items()}
    assert (figures["runs"], figures["keep_days"]) == (1, 30)
    assert [run.run_id for run in instance.get_runs()] == [result.run_id]
