"""Everything that Dagster knows of the depot. Loads with an empty environment: a run names what is missing."""

import dagster as dg

from depot_ops.assets.backup import logical_backup
from depot_ops.assets.drill import logical_restore_drill, restore_drill
from depot_ops.assets.service import depot_service
from depot_ops.checks.backup import backup_checks
from depot_ops.checks.drill import drill_checks
from depot_ops.checks.service import service_health
from depot_ops.jobs import (
    backup_verification,
    dagster_maintenance,
    nightly_maintenance,
    recovery_objectives,
    restore_drills,
)
from depot_ops.resources import RESOURCES
from depot_ops.schedules import (
    dagster_maintenance_schedule,
    nightly_maintenance_schedule,
    recovery_objectives_schedule,
    restore_drills_schedule,
)

defs = dg.Definitions(
    assets=[logical_backup, depot_service, restore_drill, logical_restore_drill],
    asset_checks=[*backup_checks, service_health, *drill_checks],
    jobs=[nightly_maintenance, backup_verification, dagster_maintenance, restore_drills, recovery_objectives],
    schedules=[
        nightly_maintenance_schedule,
        dagster_maintenance_schedule,
        restore_drills_schedule,
        recovery_objectives_schedule,
    ],
    resources=RESOURCES,
)
