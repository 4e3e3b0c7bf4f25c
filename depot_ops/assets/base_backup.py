"""Base backups: what a recovery begins with."""

import dagster as dg

from depot_ops.postgres.base_backup import INCREMENTAL_SINCE, take_base_backup
from depot_ops.postgres.base_record import BaseBackupKind
from depot_ops.postgres.binaries import find_binaries
from depot_ops.settings import BaseBackupSettings, load


class BaseBackupConfig(dg.Config):
    """Which kind is taken."""

    kind: BaseBackupKind = BaseBackupKind.FULL


@dg.asset(
    group_name="backup",
    owners=["team:depot-operations"],
    kinds={"postgres"},
    pool="backup",
    description=(
        "A physical backup of the depot's whole server in BACKUP_DIR, full each week and incremental each day (full too"
        " before PostgreSQL 17), verified before it gets its name. With the archived log it leads to any moment since."
        " When this is red there is no new one and nothing half-done is left; the log since the last one still leads to"
        " every moment. Read the run's error, fix it, launch full_backup."
    ),
)
def base_backup(config: BaseBackupConfig) -> dg.MaterializeResult[None]:
    settings, binaries = load(BaseBackupSettings), find_binaries()
    # An older server can do no other, and the day would be without one.
    kind = config.kind if binaries.major >= INCREMENTAL_SINCE else BaseBackupKind.FULL
    rate = settings.base_backup_max_rate
    backup = take_base_backup(settings.source_url, settings.backup_dir, binaries, kind, max_rate=rate)
    record = backup.record
    return dg.MaterializeResult(
        metadata={
            "kind": record.kind.value,
            "size_bytes": record.size_bytes,
            "stored_size_bytes": record.stored_size_bytes,
            "duration_seconds": record.duration_seconds,
            "verify_seconds": record.verify_seconds,
            "rate_bytes_per_second": round(record.size_bytes / record.duration_seconds),
            "start_lsn": record.start_lsn,
            "timeline": record.timeline,
            "path": dg.MetadataValue.path(str(backup.path)),
        }
    )
