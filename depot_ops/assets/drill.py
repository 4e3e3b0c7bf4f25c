"""The restore drills: what was backed up becomes a database again, every week, and is proved."""

import dagster as dg

from depot_ops.assets.backup import logical_backup
from depot_ops.assets.backup_copy import backup_copy
from depot_ops.assets.base_backup import base_backup
from depot_ops.drills.pages import as_markdown
from depot_ops.drills.record import DrillKind, DrillRecord, DrillResult, record_path
from depot_ops.resources import RestoreDrills

Metadata = dict[str, dg.MetadataValue | int | float | str]


@dg.asset(
    group_name="backup",
    owners=["team:depot-operations"],
    kinds={"postgres"},
    pool="drill",
    deps=[base_backup],
    description=(
        "The newest base backup, restored into DRILL_DIR with the whole log up to a row that was written after it, and"
        " proved: references, every row and index, and the SHA-256 of all content that it names. Evidence stays in"
        " BACKUP_DIR/drills, the copy does not; production is not touched. When this is red, do not rely on the newest"
        " backup: read the reason, mend what it names or take a full backup, and launch restore_drills again."
    ),
)
def restore_drill(context: dg.AssetExecutionContext, drills: RestoreDrills) -> dg.MaterializeResult[None]:
    return _materialized(drills.run(DrillKind.BASE, context.log.info), drills)


@dg.asset(
    group_name="backup",
    owners=["team:depot-operations"],
    kinds={"postgres"},
    pool="drill",
    deps=[logical_backup],
    description=(
        "The newest dump of each database, loaded with its roles into a private cluster in DRILL_DIR: rows and objects"
        " are counted against the records, and the depot's references followed. Evidence stays in BACKUP_DIR/drills."
        " When this is red, the newest dump cannot be relied on: read the reason, launch nightly_maintenance for a new"
        " one, and then restore_drills."
    ),
)
def logical_restore_drill(context: dg.AssetExecutionContext, drills: RestoreDrills) -> dg.MaterializeResult[None]:
    return _materialized(drills.run(DrillKind.LOGICAL, context.log.info), drills)


@dg.asset(
    group_name="backup",
    owners=["team:depot-operations"],
    kinds={"postgres"},
    pool="drill",
    deps=[backup_copy],
    description=(
        "As restore_drill, but everything is fetched from BACKUP_COPY_URL, as after the loss of this machine. First a"
        " pass copies what is new there. When this is red, the second place would not bring the depot back: read the"
        " reason, run `depot-ops backup copy --verify`, mend what it names, and launch copy_drills again."
    ),
)
def copy_restore_drill(context: dg.AssetExecutionContext, drills: RestoreDrills) -> dg.MaterializeResult[None]:
    return _materialized(drills.run(DrillKind.BASE, context.log.info, from_copy=True), drills)


def _materialized(record: DrillRecord, drills: RestoreDrills) -> dg.MaterializeResult[None]:
    metadata: Metadata = {
        **record.figures,
        "backup": record.backup or "none",
        "evidence": dg.MetadataValue.path(str(record_path(drills.backup_dir, record.label))),
        "page": dg.MetadataValue.md(as_markdown(record.model_dump(mode="json"))),
    }
    if record.result is not DrillResult.PASSED:
        raise dg.Failure(description=record.reason, metadata=metadata, allow_retries=False)
    return dg.MaterializeResult(metadata=metadata)
