"""Keeping Dagster's own database small: Dagster prunes ticks by itself, but runs and their events never."""

import time
from datetime import UTC, datetime, timedelta

import dagster as dg
import sqlalchemy as sa
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    AssetEventTagsTable,
    SqlEventLogStorageTable,
)
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._core.storage.schedules.schema import JobTickTable
from dagster._core.storage.schedules.sql_schedule_storage import SqlScheduleStorage
from pydantic import BaseModel

BATCH = 200  # runs looked up at once; each is deleted by itself
RUNLESS_RUN_ID = ""  # what a sensor reports without a run is stored under this id


class Pruned(BaseModel):
    """What was deleted: finished runs with their events, events without a run, results of checks, and ticks."""

    keep_days: int
    runs: int
    runless_events: int
    check_results: int
    ticks: int
    duration_seconds: float


def prune(instance: dg.DagsterInstance, keep_days: int) -> Pruned:
    """Delete what is older than `keep_days` days. Runs that have not finished stay, however old they are.

    Raises TypeError when the instance does not keep its events in a SQL database.
    """
    started = time.monotonic()
    oldest_kept = datetime.now(UTC) - timedelta(days=keep_days)
    runs = _prune_runs(instance, oldest_kept)
    runless_events, check_results = _prune_events(instance, oldest_kept)
    return Pruned(
        keep_days=keep_days,
        runs=runs,
        runless_events=runless_events,
        check_results=check_results,
        ticks=_prune_ticks(instance, oldest_kept),
        duration_seconds=round(time.monotonic() - started, 3),
    )


def _prune_runs(instance: dg.DagsterInstance, oldest_kept: datetime) -> int:
    old = dg.RunsFilter(statuses=FINISHED_STATUSES, updated_before=oldest_kept)
    deleted = 0
    while runs := instance.get_runs(old, limit=BATCH):
        for run in runs:
            instance.delete_run(run.run_id)
        deleted += len(runs)
    return deleted


def _prune_events(instance: dg.DagsterInstance, oldest_kept: datetime) -> tuple[int, int]:
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        raise TypeError(f"{type(storage).__name__} is no SQL storage: nothing can be pruned there")
    events, results = SqlEventLogStorageTable, AssetCheckExecutionsTable
    before = _stored(oldest_kept)
    old = sa.and_(events.c.run_id == RUNLESS_RUN_ID, events.c.timestamp < before)
    with storage.index_connection() as connection:
        tags = AssetEventTagsTable.delete().where(AssetEventTagsTable.c.event_id.in_(sa.select(events.c.id).where(old)))
        connection.execute(tags)
        runless_events = connection.execute(events.delete().where(old)).rowcount
        check_results = connection.execute(results.delete().where(results.c.create_timestamp < before)).rowcount
    return runless_events, check_results


def _prune_ticks(instance: dg.DagsterInstance, oldest_kept: datetime) -> int:
    # Dagster prunes ticks of what is defined today; those of a schedule that was renamed or removed stay for ever.
    storage = instance.schedule_storage
    if not isinstance(storage, SqlScheduleStorage):
        return 0
    with storage.connect() as connection:
        return connection.execute(JobTickTable.delete().where(JobTickTable.c.timestamp < _stored(oldest_kept))).rowcount


def _stored(moment: datetime) -> datetime:
    # Dagster's columns have no time zone and hold UTC.
    return moment.astimezone(UTC).replace(tzinfo=None)
