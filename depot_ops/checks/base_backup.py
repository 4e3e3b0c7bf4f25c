"""Base backups: is the newest one young, whole and readable?"""

import dagster as dg

from depot_ops.assets.base_backup import base_backup
from depot_ops.checks.result import check_result
from depot_ops.evidence import Finding, Status, worst
from depot_ops.postgres.base_age import BASE_BACKUP_AGE, NONE_THERE, check_age
from depot_ops.postgres.base_backup import CHAIN_INTACT, VERIFIED, check_chain, verify_base_backup
from depot_ops.postgres.base_record import find_base_backups, load_base_backup
from depot_ops.postgres.binaries import find_binaries
from depot_ops.settings import BackupSettings, BaseBackupAgeSettings, load

WHEN_RED = " When this is red, launch full_backup: it builds on nothing that is damaged."


@dg.asset_check(
    asset=base_backup,
    blocking=True,
    compute_kind="postgres",
    description="Every base backup has all that it builds on, with the sizes and records of when it was taken."
    + WHEN_RED,
)
def chain_intact() -> dg.AssetCheckResult:
    findings = [check_chain(path) for path in find_base_backups(load(BackupSettings).backup_dir)]
    return check_result(_together(CHAIN_INTACT, findings))


@dg.asset_check(
    asset=base_backup,
    blocking=True,
    compute_kind="postgres",
    description="The newest base backup reads through, and every file in it agrees with its manifest." + WHEN_RED,
)
def base_backup_verified() -> dg.AssetCheckResult:
    paths = find_base_backups(load(BackupSettings).backup_dir)
    findings = [verify_base_backup(load_base_backup(path), find_binaries()) for path in paths[-1:]]
    return check_result(_together(VERIFIED, findings))


@dg.asset_check(
    asset=base_backup,
    name=BASE_BACKUP_AGE,
    blocking=True,
    compute_kind="postgres",
    description=(
        "The newest base backup is younger than BASE_BACKUP_MAX_AGE_HOURS. An old one still leads to every moment"
        " since, but slowly: all the log since it has to be replayed." + WHEN_RED
    ),
)
def base_backup_age() -> dg.AssetCheckResult:
    settings = load(BaseBackupAgeSettings)
    return check_result(check_age(settings.backup_dir, settings.base_backup_max_age_hours))


base_backup_checks = [chain_intact, base_backup_verified, base_backup_age]


def _together(check: str, findings: list[Finding]) -> Finding:
    """One answer for all of them, with what is wrong with the worst."""
    if not findings:
        return Finding(check=check, status=Status.UNHEALTHY, detail=NONE_THERE)
    status = worst(findings)
    told = next(finding for finding in findings if finding.status is status)
    return Finding(check=check, status=status, detail=told.detail, figures={**told.figures, "backups": len(findings)})
