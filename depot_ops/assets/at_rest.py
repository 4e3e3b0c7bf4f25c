"""Backups and log, read again where they lie."""

from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import dagster as dg

from depot_ops.assets.backup import logical_backup
from depot_ops.assets.base_backup import base_backup
from depot_ops.copies.at_rest import SHARES, share_of, verify_share, verify_share_of_copy
from depot_ops.copies.holdings import look
from depot_ops.evidence import Finding, Status, worst
from depot_ops.places import open_place
from depot_ops.postgres.binaries import find_binaries
from depot_ops.settings import AtRestSettings, load


@dg.asset(
    deps=[logical_backup, base_backup],
    group_name="backup",
    owners=["team:depot-operations"],
    kinds={"postgres"},
    pool="backup",
    description=(
        "A fourteenth of all dumps, base backups and archived log, another each day, read from the disk and compared"
        " with their hashes, also at BACKUP_COPY_URL: whatever lies there is read once in a fortnight. When this is"
        " red, what it names is damaged: look at that disk; `depot-ops backup copy --repair` mends the second place."
        " For a damaged base backup or segment here launch full_backup, for a damaged dump nightly_maintenance."
    ),
)
def backups_at_rest(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    settings, share = load(AtRestSettings), share_of(datetime.now(UTC).date())
    say = context.log.info
    findings = list(verify_share(settings.backup_dir, settings.wal_archive_dir, find_binaries(), share, say))
    if settings.backup_copy_url:
        findings += _copied(settings.backup_copy_url, share)
    wrong = [finding for finding in findings if finding.status is not Status.HEALTHY]
    figures = {"share": share + 1, "shares": SHARES, "looked_at": len(findings), "damaged": len(wrong)}
    if wrong:
        told = "; ".join(f"{finding.check}: {finding.detail}" for finding in wrong)
        raise dg.Failure(f"{worst(wrong)}: {told}", metadata=figures, allow_retries=False)
    return dg.MaterializeResult(metadata=figures)


def _copied(url: str, share: int) -> list[Finding]:
    with TemporaryDirectory(prefix="depot-copy-") as home:
        return list(verify_share_of_copy(look(open_place(url), Path(home)), share))
