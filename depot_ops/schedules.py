"""When the jobs run."""

import dagster as dg

from depot_ops.jobs import dagster_maintenance, nightly_maintenance, recovery_objectives, restore_drills
from depot_ops.settings import OrchestratorSettings, load

_TIMEZONE = load(OrchestratorSettings).maintenance_timezone

nightly_maintenance_schedule = dg.ScheduleDefinition(
    job=nightly_maintenance,
    cron_schedule="0 1 * * *",
    execution_timezone=_TIMEZONE,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every night at 01:00 in MAINTENANCE_TIMEZONE.",
)

dagster_maintenance_schedule = dg.ScheduleDefinition(
    job=dagster_maintenance,
    cron_schedule="30 4 * * *",
    execution_timezone=_TIMEZONE,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every night at 04:30 in MAINTENANCE_TIMEZONE, when the nightly work is done.",
)

restore_drills_schedule = dg.ScheduleDefinition(
    job=restore_drills,
    cron_schedule="0 6 * * 0",
    execution_timezone=_TIMEZONE,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every Sunday at 06:00 in MAINTENANCE_TIMEZONE, when the night's backups are done.",
)

recovery_objectives_schedule = dg.ScheduleDefinition(
    job=recovery_objectives,
    cron_schedule="0 8 * * *",
    execution_timezone=_TIMEZONE,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every morning at 08:00 in MAINTENANCE_TIMEZONE.",
)
