"""Everything that Dagster knows of the depot. Loads with an empty environment: a run names what is missing."""

import dagster as dg

from depot_ops import jobs, schedules
from depot_ops.alerts.sensor import alerts
from depot_ops.assets.backup import logical_backup, retention
from depot_ops.assets.base_backup import base_backup
from depot_ops.assets.drill import logical_restore_drill, restore_drill
from depot_ops.assets.merge import branch_merge
from depot_ops.assets.replica import replica_assets
from depot_ops.assets.report import ops_report
from depot_ops.assets.service import depot_service
from depot_ops.assets.wal import wal_archive
from depot_ops.checks.backup import backup_checks
from depot_ops.checks.base_backup import base_backup_checks
from depot_ops.checks.drill import drill_checks
from depot_ops.checks.replica import replica_checks
from depot_ops.checks.service import service_health
from depot_ops.checks.wal import wal_checks
from depot_ops.merge_runs import merge_execution, merge_jobs
from depot_ops.replicas.watch import known_nodes
from depot_ops.resources import RESOURCES
from depot_ops.sensors import replica_sensors
from depot_ops.settings import ReplicaSettings, load

_NODES = known_nodes(load(ReplicaSettings).replica_dir)

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
        *replica_assets(_NODES),
    ],
    asset_checks=[
        *backup_checks,
        *base_backup_checks,
        *wal_checks,
        *drill_checks,
        *replica_checks(_NODES),
        service_health,
    ],
    jobs=[*jobs.ALL, merge_execution],
    schedules=schedules.ALL,
    sensors=[alerts, merge_jobs, *replica_sensors(_NODES)],
    resources=RESOURCES,
)
