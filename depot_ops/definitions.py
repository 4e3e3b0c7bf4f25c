"""Everything that Dagster knows of the depot. Loads with an empty environment: a run names what is missing."""

import dagster as dg

from depot_ops.assets.backup import logical_backup, retention
from depot_ops.assets.base_backup import base_backup
from depot_ops.assets.report import ops_report
from depot_ops.assets.service import depot_service
from depot_ops.assets.wal import wal_archive
from depot_ops.checks.backup import backup_checks
from depot_ops.checks.base_backup import base_backup_age, base_backup_verified, chain_intact
from depot_ops.checks.service import service_health
from depot_ops.checks.wal import wal_checks
from depot_ops.jobs import (
    backup_verification,
    dagster_maintenance,
    dr_checklist,
    full_backup,
    incremental_backup,
    nightly_maintenance,
    nightly_report,
    wal_check,
)
from depot_ops.resources import RESOURCES
from depot_ops.schedules import (
    dagster_maintenance_schedule,
    full_backup_schedule,
    incremental_backup_schedule,
    nightly_maintenance_schedule,
    nightly_report_schedule,
    wal_check_schedule,
)

defs = dg.Definitions(
    assets=[logical_backup, retention, base_backup, wal_archive, ops_report, depot_service],
    asset_checks=[
        *backup_checks,
        chain_intact,
        base_backup_verified,
        base_backup_age,
        *wal_checks,
        service_health,
    ],
    jobs=[
        nightly_maintenance,
        nightly_report,
        backup_verification,
        full_backup,
        incremental_backup,
        wal_check,
        dr_checklist,
        dagster_maintenance,
    ],
    schedules=[
        nightly_maintenance_schedule,
        nightly_report_schedule,
        full_backup_schedule,
        incremental_backup_schedule,
        wal_check_schedule,
        dagster_maintenance_schedule,
    ],
    resources=RESOURCES,
)
