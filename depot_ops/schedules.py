"""When the jobs run."""

import dagster as dg

from depot_ops.jobs import dagster_maintenance, nightly_maintenance, nightly_report
from depot_ops.settings import OrchestratorSettings, load

_TIMEZONE = load(OrchestratorSettings).maintenance_timezone

nightly_maintenance_schedule = dg.ScheduleDefinition(
    job=nightly_maintenance,
    cron_schedule="0 1 * * *",
    execution_timezone=_TIMEZONE,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every night at 01:00 in MAINTENANCE_TIMEZONE.",
)

nightly_report_schedule = dg.ScheduleDefinition(
    job=nightly_report,
    cron_schedule="0 6 * * *",
    execution_timezone=_TIMEZONE,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every morning at 06:00 in MAINTENANCE_TIMEZONE, when the night's work has ended or is late.",
)

dagster_maintenance_schedule = dg.ScheduleDefinition(
    job=dagster_maintenance,
    cron_schedule="30 4 * * *",
    execution_timezone=_TIMEZONE,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every night at 04:30 in MAINTENANCE_TIMEZONE, when the nightly work is done.",
)
