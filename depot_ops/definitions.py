"""Everything that Dagster knows of the depot. Loads with an empty environment: a run names what is missing."""

import dagster as dg

from depot_ops.assets.backup import logical_backup, retention
from depot_ops.assets.report import ops_report
from depot_ops.assets.service import depot_service
from depot_ops.checks.backup import backup_checks
from depot_ops.checks.service import service_health
from depot_ops.jobs import backup_verification, dagster_maintenance, nightly_maintenance, nightly_report
from depot_ops.resources import RESOURCES
from depot_ops.schedules import dagster_maintenance_schedule, nightly_maintenance_schedule, nightly_report_schedule

defs = dg.Definitions(
    assets=[logical_backup, retention, ops_report, depot_service],
    asset_checks=[*backup_checks, service_health],
    jobs=[nightly_maintenance, nightly_report, backup_verification, dagster_maintenance],
    schedules=[nightly_maintenance_schedule, nightly_report_schedule, dagster_maintenance_schedule],
    resources=RESOURCES,
)
