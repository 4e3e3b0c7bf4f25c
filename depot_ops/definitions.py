"""Everything that Dagster knows of the depot. Loads with an empty environment: a run names what is missing."""

import dagster as dg

from depot_ops import jobs, schedules
from depot_ops.assets.backup import logical_backup, retention
from depot_ops.assets.base_backup import base_backup
from depot_ops.assets.drill import logical_restore_drill, restore_drill
from depot_ops.assets.merge import branch_merge
from depot_ops.assets.report import ops_report
from depot_ops.assets.service import depot_service
from depot_ops.assets.wal import wal_archive
from depot_ops.checks.backup import backup_checks
from depot_ops.checks.base_backup import base_backup_checks
from depot_ops.checks.drill import drill_checks
from depot_ops.checks.service import service_health
from depot_ops.checks.wal import wal_checks
from depot_ops.merge_runs import merge_execution, merge_jobs
from depot_ops.resources import RESOURCES

defs = dg.Definitions(
    assets=[
        logical_backup,
        retention,
        base_backup,
        wal_archive,
        restore_drill,
        logical_restore_drill,
        ops_report,
        depot_service,
        branch_merge,
    ],
    asset_checks=[*backup_checks, *base_backup_checks, *wal_checks, *drill_checks, service_health],
    jobs=[*jobs.ALL, merge_execution],
    schedules=schedules.ALL,
    sensors=[merge_jobs],
    resources=RESOURCES,
)
