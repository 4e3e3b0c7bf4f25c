"""The second place: is everything there, and is it young?"""

from datetime import timedelta

import dagster as dg

from depot_ops.assets.backup_copy import backup_copy
from depot_ops.checks.result import check_result
from depot_ops.copies.checks import COPY_AGE, COPY_COMPLETE, check_age, check_complete
from depot_ops.places import open_place
from depot_ops.settings import CopySettings, load

WHEN_RED = (
    " When this is red, what is missing would be lost with this machine: launch backup_copy, and read what it says."
)


@dg.asset_check(
    asset=backup_copy,
    name=COPY_COMPLETE,
    blocking=True,
    compute_kind="postgres",
    description=(
        "Every proved backup, file of the log and drill that is older than BACKUP_COPY_MAX_AGE_HOURS is at"
        " BACKUP_COPY_URL, by its name and size. `depot-ops backup copy --verify` reads them." + WHEN_RED
    ),
)
def copy_complete() -> dg.AssetCheckResult:
    settings = load(CopySettings)
    place, max_age = open_place(settings.backup_copy_url), timedelta(hours=settings.backup_copy_max_age_hours)
    return check_result(check_complete(settings.backup_dir, settings.wal_archive_dir, place, max_age))


@dg.asset_check(
    asset=backup_copy,
    name=COPY_AGE,
    blocking=True,
    compute_kind="postgres",
    description="A pass within BACKUP_COPY_MAX_AGE_HOURS left nothing out." + WHEN_RED,
)
def copy_age() -> dg.AssetCheckResult:
    settings = load(CopySettings)
    return check_result(check_age(settings.backup_dir, timedelta(hours=settings.backup_copy_max_age_hours)))


backup_copy_checks = [copy_complete, copy_age]
