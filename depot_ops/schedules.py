"""When the jobs run."""

import dagster as dg

from depot_ops.jobs import (
    at_rest_verification,
    backup_copies,
    bucket_check,
    copy_drills,
    dagster_maintenance,
    full_backup,
    incremental_backup,
    mirror_check,
    nightly_maintenance,
    nightly_mirror,
    nightly_push,
    nightly_report,
    nightly_scrub,
    nightly_tiering,
    recovery_objectives,
    restore_drills,
    wal_check,
    weekly_collection,
)
from depot_ops.settings import OrchestratorSettings, load

_TIMEZONE = load(OrchestratorSettings).maintenance_timezone

nightly_maintenance_schedule = dg.ScheduleDefinition(
    job=nightly_maintenance,
    cron_schedule="0 1 * * *",
    execution_timezone=_TIMEZONE,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every night at 01:00 in MAINTENANCE_TIMEZONE.",
)

full_backup_schedule = dg.ScheduleDefinition(
    job=full_backup,
    cron_schedule="0 3 * * 0",
    execution_timezone=_TIMEZONE,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every Sunday at 03:00 in MAINTENANCE_TIMEZONE.",
)

incremental_backup_schedule = dg.ScheduleDefinition(
    job=incremental_backup,
    cron_schedule="0 3 * * 1-6",
    execution_timezone=_TIMEZONE,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="At 03:00 in MAINTENANCE_TIMEZONE on every day but Sunday, which has a full one.",
)

wal_check_schedule = dg.ScheduleDefinition(
    job=wal_check,
    cron_schedule="*/15 * * * *",
    execution_timezone=_TIMEZONE,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every quarter of an hour.",
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

restore_drills_schedule = dg.ScheduleDefinition(
    job=restore_drills,
    # On the day before the full backup, which is drilled by itself: what is restored here is a whole week's chain.
    cron_schedule="0 6 * * 6",
    execution_timezone=_TIMEZONE,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every Saturday at 06:00 in MAINTENANCE_TIMEZONE, when the newest backup ends a chain of seven.",
)

at_rest_verification_schedule = dg.ScheduleDefinition(
    job=at_rest_verification,
    cron_schedule="0 14 * * *",
    execution_timezone=_TIMEZONE,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every day at 14:00 in MAINTENANCE_TIMEZONE, far from the night's work.",
)

recovery_objectives_schedule = dg.ScheduleDefinition(
    job=recovery_objectives,
    cron_schedule="0 8 * * *",
    execution_timezone=_TIMEZONE,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every morning at 08:00 in MAINTENANCE_TIMEZONE.",
)

nightly_mirror_schedule = dg.ScheduleDefinition(
    job=nightly_mirror,
    cron_schedule="0 2 * * *",
    execution_timezone=_TIMEZONE,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every night at 02:00 in MAINTENANCE_TIMEZONE.",
)

mirror_check_schedule = dg.ScheduleDefinition(
    job=mirror_check,
    cron_schedule="20 * * * *",
    execution_timezone=_TIMEZONE,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every hour.",
)

nightly_push_schedule = dg.ScheduleDefinition(
    job=nightly_push,
    cron_schedule="30 2 * * *",
    execution_timezone=_TIMEZONE,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every night at 02:30 in MAINTENANCE_TIMEZONE.",
)

bucket_check_schedule = dg.ScheduleDefinition(
    job=bucket_check,
    cron_schedule="50 */6 * * *",
    execution_timezone=_TIMEZONE,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every six hours.",
)

nightly_scrub_schedule = dg.ScheduleDefinition(
    job=nightly_scrub,
    cron_schedule="0 4 * * *",
    execution_timezone=_TIMEZONE,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every night at 04:00 in MAINTENANCE_TIMEZONE.",
)

weekly_collection_schedule = dg.ScheduleDefinition(
    job=weekly_collection,
    cron_schedule="0 12 * * 0",
    execution_timezone=_TIMEZONE,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every Sunday at 12:00 in MAINTENANCE_TIMEZONE, when backups and drills are done.",
)

nightly_tiering_schedule = dg.ScheduleDefinition(
    job=nightly_tiering,
    cron_schedule="0 5 * * *",
    execution_timezone=_TIMEZONE,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every night at 05:00 in MAINTENANCE_TIMEZONE.",
)

# Where the settings name a policy, and the operations layer moves or evicts.
WITH_TIERING = [nightly_tiering_schedule]

# Where the settings name a bucket.
WITH_BUCKET = [nightly_push_schedule, bucket_check_schedule]

# Where the settings name a mirror.
WITH_MIRROR = [nightly_mirror_schedule, mirror_check_schedule]

backup_copies_schedule = dg.ScheduleDefinition(
    job=backup_copies,
    cron_schedule="45 * * * *",
    execution_timezone=_TIMEZONE,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every hour, 45 minutes past it.",
)

copy_drills_schedule = dg.ScheduleDefinition(
    job=copy_drills,
    cron_schedule="0 9 * * 0",
    execution_timezone=_TIMEZONE,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every Sunday at 09:00 in MAINTENANCE_TIMEZONE, when the full backup and its drill are done.",
)

ALL = [
    nightly_maintenance_schedule,
    full_backup_schedule,
    incremental_backup_schedule,
    wal_check_schedule,
    nightly_report_schedule,
    dagster_maintenance_schedule,
    restore_drills_schedule,
    at_rest_verification_schedule,
    recovery_objectives_schedule,
    nightly_scrub_schedule,
    weekly_collection_schedule,
]
WITH_COPY = [backup_copies_schedule, copy_drills_schedule]
