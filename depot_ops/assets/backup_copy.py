"""The second place of backups and the log."""

import dagster as dg

from depot_ops.assets.backup import logical_backup
from depot_ops.assets.base_backup import base_backup
from depot_ops.copies.copying import copy_backups
from depot_ops.copies.pruning import prune_copy
from depot_ops.places import open_place
from depot_ops.postgres.prune import configured
from depot_ops.settings import CopySettings, RetentionSettings, load


@dg.asset(
    deps=[logical_backup, base_backup],
    group_name="backup",
    owners=["team:depot-operations"],
    kinds={"postgres"},
    pool="backup_copy",
    description=(
        "Everything proved in BACKUP_DIR and WAL_ARCHIVE_DIR, at BACKUP_COPY_URL too: each file compared by SHA-256"
        " on arrival, nothing overwritten. What retention let go here is let go there by the same rules. When this is"
        " red, what was copied stays and restores with --from-copy; what is new since is in one place only. Read the"
        " run's error, fix it, launch backup_copy: it goes on where it stopped."
    ),
)
def backup_copy(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    settings = load(CopySettings)
    place = open_place(settings.backup_copy_url)
    copied = copy_backups(settings.backup_dir, settings.wal_archive_dir, place, say=context.log.info)
    if copied.refused:
        told = "; ".join(f"{refusal.name}: {refusal.reason}" for refusal in copied.refused[:10])
        raise dg.Failure(f"{len(copied.refused)} were not copied: {told}", allow_retries=False)
    pruned = prune_copy(configured(load(RetentionSettings)), place)
    seconds = (copied.finished_at - copied.started_at).total_seconds()
    return dg.MaterializeResult(
        metadata={
            "place": copied.place,
            "copied": len(copied.copied),
            "copied_bytes": copied.copied_bytes,
            "duration_seconds": seconds,
            "rate_bytes_per_second": round(copied.copied_bytes / seconds),
            "deleted": len(pruned.deleted),
            "freed_bytes": pruned.freed_bytes,
            **{f"{kind}_units": count for kind, count in copied.units.items()},
        }
    )
