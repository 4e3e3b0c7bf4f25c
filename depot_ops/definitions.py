"""Everything that Dagster knows of the depot. Loads with an empty environment: a run names what is missing."""

import dagster as dg

from depot_ops import jobs, schedules
from depot_ops.alerts.sensor import alerts
from depot_ops.assets.at_rest import backups_at_rest
from depot_ops.assets.backup import logical_backup, retention
from depot_ops.assets.backup_copy import backup_copy
from depot_ops.assets.base_backup import base_backup
from depot_ops.assets.blobs import STORE_ASSETS, blob_mirror, blob_object_storage
from depot_ops.assets.drill import copy_restore_drill, logical_restore_drill, restore_drill
from depot_ops.assets.merge import branch_merge
from depot_ops.assets.replica import replica_assets
from depot_ops.assets.report import ops_report
from depot_ops.assets.service import depot_service
from depot_ops.assets.tiering import blob_tiering
from depot_ops.assets.wal import wal_archive
from depot_ops.checks.backup import backup_checks
from depot_ops.checks.backup_copy import backup_copy_checks
from depot_ops.checks.base_backup import base_backup_checks
from depot_ops.checks.blobs import BUCKET_CHECKS, BUCKET_READ_CHECKS, MIRROR_CHECKS, STORE_CHECKS
from depot_ops.checks.drill import copy_drill_checks, drill_checks
from depot_ops.checks.replica import replica_checks
from depot_ops.checks.service import service_health
from depot_ops.checks.tiering import tiering_checks
from depot_ops.checks.wal import wal_checks
from depot_ops.failover_runs import failover_checks, failover_jobs, failover_sensors
from depot_ops.merge_runs import merge_execution, merge_jobs
from depot_ops.replicas.site import watched_names
from depot_ops.resources import RESOURCES
from depot_ops.sensors import replica_sensors
from depot_ops.settings import (
    ReplicaSettings,
    ScrubSettings,
    SecondPlaceSettings,
    TierChoiceSettings,
    load,
)

_PROVIDER = load(ReplicaSettings).failover_provider
_SERVERS = watched_names()
_COPIES = load(ScrubSettings)
_MIRRORED, _PUSHED, _READ = (
    _COPIES.asset_storage_replica_path is not None,
    _COPIES.blob_copy_url is not None,
    _COPIES.reads_bucket,
)
_TIERING = load(TierChoiceSettings)
_COPIED = bool(load(SecondPlaceSettings).backup_copy_url)

defs = dg.Definitions(
    assets=[
        logical_backup,
        retention,
        base_backup,
        wal_archive,
        backups_at_rest,
        restore_drill,
        logical_restore_drill,
        ops_report,
        depot_service,
        branch_merge,
        *([backup_copy, copy_restore_drill] if _COPIED else []),
        *replica_assets(_SERVERS),
        *STORE_ASSETS,
        *([blob_mirror] if _MIRRORED else []),
        *([blob_object_storage] if _PUSHED else []),
        *([blob_tiering] if _TIERING.runs_nightly else []),
    ],
    asset_checks=[
        *backup_checks,
        *base_backup_checks,
        *wal_checks,
        *drill_checks,
        *([*backup_copy_checks, *copy_drill_checks] if _COPIED else []),
        *replica_checks(_SERVERS),
        *failover_checks(_PROVIDER, _SERVERS),
        service_health,
        *STORE_CHECKS,
        *(MIRROR_CHECKS if _MIRRORED else []),
        *(BUCKET_CHECKS if _PUSHED else []),
        *(BUCKET_READ_CHECKS if _READ else []),
        *(tiering_checks if _TIERING.is_explicit else []),
    ],
    jobs=[
        *jobs.ALL,
        *(jobs.WITH_COPY if _COPIED else ()),
        *(jobs.WITH_MIRROR if _MIRRORED else ()),
        *(jobs.WITH_BUCKET if _PUSHED else ()),
        *(jobs.WITH_TIERING if _TIERING.runs_nightly else ()),
        merge_execution,
        *failover_jobs(_PROVIDER),
    ],
    schedules=[
        *schedules.ALL,
        *(schedules.WITH_COPY if _COPIED else ()),
        *(schedules.WITH_MIRROR if _MIRRORED else ()),
        *(schedules.WITH_BUCKET if _PUSHED else ()),
        *(schedules.WITH_TIERING if _TIERING.runs_nightly else ()),
    ],
    sensors=[alerts, merge_jobs, *replica_sensors(_PROVIDER, _SERVERS), *failover_sensors(_PROVIDER, _SERVERS)],
    resources=RESOURCES,
)
