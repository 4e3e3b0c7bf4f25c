"""The nightly logical backup, and what may go after it."""

from pathlib import Path

import dagster as dg

from depot_ops.postgres.dump_record import BackupRecord
from depot_ops.postgres.prune import configured, prune
from depot_ops.resources import BackupDirectory, DumpSource
from depot_ops.settings import RetentionSettings, load


@dg.asset(
    group_name="backup",
    owners=["team:depot-operations"],
    kinds={"postgres"},
    pool="backup",
    description=(
        "A pg_dump of the depot's whole database (metadata and history, not the blobs) and of each database that"
        " BACKUP_DATABASES and BACKUP_DATABASE_URLS name, in BACKUP_DIR, with the roles of its cluster. It gets its"
        " name only after it was read in full and its rows, objects and SHA-256 agreed with the source. When this is"
        " red, the databases that the run's error names have no new backup, the others have, and nothing half-done is"
        " left: fix it, launch nightly_maintenance again. Older backups are untouched."
    ),
)
def logical_backup(dump_source: DumpSource, backups: BackupDirectory) -> dg.MaterializeResult[None]:
    directory = Path(backups.path)
    taken, not_taken = dump_source.take_logical_backups(directory)
    if not_taken:
        raise dg.Failure(
            "; ".join(f"{failure.database}: {failure.reason}" for failure in not_taken),
            metadata={"not_taken": len(not_taken), "taken": len(taken), "databases": _table(taken)},
        )
    return dg.MaterializeResult(metadata={**_figures(taken[0], directory), "databases": _table(taken)})


@dg.asset(
    deps=[logical_backup],
    group_name="backup",
    owners=["team:depot-operations"],
    kinds={"postgres"},
    pool="backup",
    description=(
        "Deletes the dumps, chains of base backups and archived log that BACKUP_KEEP_* and BASE_KEEP_DAYS let go, after"
        " a night whose backup was proved; after any other nothing goes. Only proved backups count, and log goes only"
        " once a restore drill has passed. When this is red nothing that is needed is lost; disks fill until it works."
        " `depot-ops backup prune --dry-run` says what would go and why."
    ),
)
def retention() -> dg.MaterializeResult[None]:
    pruned = prune(configured(load(RetentionSettings)))
    rows = [f"| {d.action} | {d.kind} | {d.name} | {d.size_bytes} | {d.reason} |" for d in pruned.decisions]
    table = "\n".join(["| what | kind | name | bytes | why |", "|---|---|---|---|---|", *rows])
    return dg.MaterializeResult(
        metadata={
            "deleted": len(pruned.deleted),
            "kept": len(pruned.decisions) - len(pruned.deleted),
            "freed_bytes": pruned.freed_bytes,
            "kept_bytes": sum(d.size_bytes for d in pruned.decisions) - pruned.freed_bytes,
            "decisions": dg.MetadataValue.md(table),
        }
    )


def _table(records: list[BackupRecord]) -> dg.MarkdownMetadataValue:
    rows = [
        f"| {r.database} | {r.file} | {r.size_bytes} | {sum(r.row_counts.values())} | {r.duration_seconds} |"
        for r in records
    ]
    return dg.MetadataValue.md("\n".join(["| database | dump | bytes | rows | s |", "|---|---|---|---|---|", *rows]))


def _figures(record: BackupRecord, directory: Path) -> dict[str, dg.MetadataValue | int | float | str]:
    return {
        "size_bytes": record.size_bytes,
        "duration_seconds": record.duration_seconds,
        "rate_bytes_per_second": round(record.size_bytes / record.duration_seconds),
        "rows": sum(record.row_counts.values()),
        "tables": len(record.row_counts),
        "path": dg.MetadataValue.path(str(directory / record.file)),
        "sha256": record.sha256,
        "server_version": record.server_version,
        "tool_version": record.tool_version,
    }
