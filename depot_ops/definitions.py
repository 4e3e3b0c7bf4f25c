"""Everything that Dagster knows of the depot. Loads with an empty environment: a run names what is missing."""

import dagster as dg

from depot_ops.assets.backup import logical_backup
from depot_ops.assets.merge import branch_merge
from depot_ops.assets.service import depot_service
from depot_ops.checks.backup import backup_checks
from depot_ops.checks.service import service_health
from depot_ops.jobs import backup_verification, dagster_maintenance, nightly_maintenance
from depot_ops.merge_runs import merge_execution, merge_jobs
from depot_ops.resources import RESOURCES
from depot_ops.schedules import dagster_maintenance_schedule, nightly_maintenance_schedule

defs = dg.Definitions(
    assets=[logical_backup, depot_service, branch_merge],
    asset_checks=[*backup_checks, service_health],
    jobs=[nightly_maintenance, backup_verification, dagster_maintenance, merge_execution],
    schedules=[nightly_maintenance_schedule, dagster_maintenance_schedule],
    sensors=[merge_jobs],
    resources=RESOURCES,
)
