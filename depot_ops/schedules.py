"""When the jobs run."""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

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


Job = dg.JobDefinition | UnresolvedAssetJobDefinition


def _schedule(job: Job, cron: str, when: str) -> dg.ScheduleDefinition:
    return dg.ScheduleDefinition(
        job=job,
        cron_schedule=cron,
        execution_timezone=_TIMEZONE,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"{when} In the time zone of MAINTENANCE_TIMEZONE.",
    )


nightly_maintenance_schedule = _schedule(nightly_maintenance, "0 1 * * *", "Every night at 01:00.")

full_backup_schedule = _schedule(full_backup, "0 3 * * 0", "Every Sunday at 03:00.")

incremental_backup_schedule = _schedule(
    incremental_backup, "0 3 * * 1-6", "At 03:00 on every day but Sunday, which has a full one."
)

wal_check_schedule = _schedule(wal_check, "*/15 * * * *", "Every quarter of an hour.")

nightly_report_schedule = _schedule(
    nightly_report, "0 6 * * *", "Every morning at 06:00, when the night's work has ended or is late."
)

dagster_maintenance_schedule = _schedule(
    dagster_maintenance, "30 4 * * *", "Every night at 04:30, when the nightly work is done."
)

# On the day before the full backup, which is drilled by itself: what is restored here is a whole week's chain.
restore_drills_schedule = _schedule(
    restore_drills, "0 6 * * 6", "Every Saturday at 06:00, when the newest backup ends a chain of seven."
)

at_rest_verification_schedule = _schedule(
    at_rest_verification, "0 14 * * *", "Every day at 14:00, far from the night's work."
)

recovery_objectives_schedule = _schedule(recovery_objectives, "0 8 * * *", "Every morning at 08:00.")

nightly_mirror_schedule = _schedule(nightly_mirror, "0 2 * * *", "Every night at 02:00.")

mirror_check_schedule = _schedule(mirror_check, "20 * * * *", "Every hour.")

nightly_push_schedule = _schedule(nightly_push, "30 2 * * *", "Every night at 02:30.")

bucket_check_schedule = _schedule(bucket_check, "50 */6 * * *", "Every six hours.")

nightly_scrub_schedule = _schedule(nightly_scrub, "0 4 * * *", "Every night at 04:00.")

weekly_collection_schedule = _schedule(
    weekly_collection, "0 12 * * 0", "Every Sunday at 12:00, when backups and drills are done."
)

nightly_tiering_schedule = _schedule(nightly_tiering, "0 5 * * *", "Every night at 05:00.")

# Where the settings name a policy, and the operations layer moves or evicts.
WITH_TIERING = [nightly_tiering_schedule]

# Where the settings name a bucket.
WITH_BUCKET = [nightly_push_schedule, bucket_check_schedule]

# Where the settings name a mirror.
WITH_MIRROR = [nightly_mirror_schedule, mirror_check_schedule]

backup_copies_schedule = _schedule(backup_copies, "45 * * * *", "Every hour, 45 minutes past it.")

copy_drills_schedule = _schedule(
    copy_drills, "0 9 * * 0", "Every Sunday at 09:00, when the full backup and its drill are done."
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
