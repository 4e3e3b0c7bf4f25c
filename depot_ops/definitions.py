"""Everything that Dagster knows of the depot. Loads with an empty environment: a run names what is missing."""

import dagster as dg

from depot_ops.assets.backup import logical_backup
from depot_ops.assets.replica import replica_assets
from depot_ops.assets.service import depot_service
from depot_ops.checks.backup import backup_checks
from depot_ops.checks.replica import replica_checks
from depot_ops.checks.service import service_health
from depot_ops.jobs import backup_verification, dagster_maintenance, nightly_maintenance
from depot_ops.replicas.watch import known_nodes
from depot_ops.resources import RESOURCES
from depot_ops.schedules import dagster_maintenance_schedule, nightly_maintenance_schedule
from depot_ops.sensors import replica_sensors
from depot_ops.settings import ReplicaSettings, load

_NODES = known_nodes(load(ReplicaSettings).replica_dir)

defs = dg.Definitions(
    assets=[logical_backup, depot_service, *replica_assets(_NODES)],
    asset_checks=[*backup_checks, service_health, *replica_checks(_NODES)],
    jobs=[nightly_maintenance, backup_verification, dagster_maintenance],
    schedules=[nightly_maintenance_schedule, dagster_maintenance_schedule],
    sensors=replica_sensors(_NODES),
    resources=RESOURCES,
)
