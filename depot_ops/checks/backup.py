"""The newest backup of each database, proved again as it lies there now: damage that came later is found too."""

import dagster as dg

from depot_ops.assets.backup import logical_backup
from depot_ops.checks.result import check_result, together
from depot_ops.postgres.dump_checks import DumpCheck
from depot_ops.reports.nightly import BACKUP_AGE, check_backup_age
from depot_ops.resources import BackupDirectory
from depot_ops.settings import BackupSettings, load

DESCRIPTIONS = {
    DumpCheck.RESTORABLE_LISTING: "pg_restore lists each database's newest backup, with all objects of the source.",
    DumpCheck.FULL_READ: "pg_restore reads and decompresses each database's newest backup to its last byte.",
    DumpCheck.CHECKSUM: "Each database's newest backup has the size and the SHA-256 that it was written with.",
    DumpCheck.ROW_COUNTS: "Each database's newest backup has as many rows of each table as the source had then.",
}
WHEN_RED = (
    " When this is red, do not rely on the backup that the result names: keep it for diagnosis, launch"
    " nightly_maintenance for a new backup, and look at the disk that it lies on."
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
        return check_result(together(backups.verify_newest(name)))

    return check


@dg.asset_check(
    asset=logical_backup,
    name=BACKUP_AGE,
    blocking=True,
    compute_kind="postgres",
    description=(
        "The newest dump of each database was taken within a day and two hours. When this is red, nights fail or do not"
        " run at all: read the last run of nightly_maintenance, and launch it."
    ),
)
def backup_age() -> dg.AssetCheckResult:
    return check_result(check_backup_age(load(BackupSettings).backup_dir))


backup_checks = [*(_check(name) for name in DumpCheck), backup_age]
