"""The newest backup, proved again from the file that lies there now: damage that came later is found too."""

import dagster as dg

from depot_ops.assets.backup import logical_backup
from depot_ops.checks.result import check_result
from depot_ops.postgres.dump_checks import DumpCheck
from depot_ops.resources import BackupDirectory

DESCRIPTIONS = {
    DumpCheck.RESTORABLE_LISTING: "pg_restore lists the newest backup, with every object that the source had.",
    DumpCheck.FULL_READ: "pg_restore reads and decompresses the newest backup to its last byte.",
    DumpCheck.CHECKSUM: "The newest backup has the size and the SHA-256 that it was written with.",
    DumpCheck.ROW_COUNTS: "The newest backup holds as many rows of each table as the source had at that moment.",
}
WHEN_RED = (
    " When this is red, do not rely on that file: keep it for diagnosis, launch nightly_maintenance for a new backup,"
    " and look at the disk that it lies on."
)


def _check(name: DumpCheck) -> dg.AssetChecksDefinition:
    # Blocking, so that a red check fails the run and whatever builds on the backup waits.
    @dg.asset_check(
        asset=logical_backup,
        name=name.value,
        description=DESCRIPTIONS[name] + WHEN_RED,
        blocking=True,
        compute_kind="postgres",
    )
    def check(backups: BackupDirectory) -> dg.AssetCheckResult:
        return check_result(backups.verify_newest(name))

    return check


backup_checks = [_check(name) for name in DumpCheck]
