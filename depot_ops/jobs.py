"""What runs by itself, and what a person launches from the UI or with `depot-ops run`."""

from pathlib import Path

import dagster as dg

from depot_ops.assets.at_rest import backups_at_rest
from depot_ops.assets.backup import logical_backup, retention
from depot_ops.assets.backup_copy import backup_copy
from depot_ops.assets.base_backup import BaseBackupConfig, base_backup
from depot_ops.assets.blobs import blob_collection, blob_mirror, blob_object_storage, blob_scrub
from depot_ops.assets.drill import copy_restore_drill, logical_restore_drill, restore_drill
from depot_ops.assets.report import ops_report
from depot_ops.assets.service import depot_service
from depot_ops.assets.tiering import blob_tiering
from depot_ops.assets.wal import wal_archive
from depot_ops.checks.backup import backup_age
from depot_ops.checks.base_backup import base_backup_age
from depot_ops.evidence import Status
from depot_ops.maintenance import prune
from depot_ops.postgres.base_record import BaseBackupKind
from depot_ops.reports.checklist import DIRECTORY, ChecklistScope, walk, write_documents
from depot_ops.settings import ChecklistSettings, OrchestratorSettings, load

OWNER = {"owner": "depot-operations"}
MAX_RUNTIME = "dagster/max_runtime"  # seconds, after which run monitoring ends the run
TWELVE_HOURS, FOUR_HOURS, HALF_AN_HOUR = "43200", "14400", "1800"

nightly_maintenance = dg.define_asset_job(
    "nightly_maintenance",
    selection=dg.AssetSelection.assets(logical_backup, retention)
    | dg.AssetSelection.checks_for_assets(depot_service.key),
    executor_def=dg.in_process_executor,
    tags=OWNER | {MAX_RUNTIME: FOUR_HOURS, "dagster/kind/postgres": ""},
    description=(
        "Takes a logical backup, proves the newest one, deletes what retention lets go, and asks the depot how it is."
        " Red when any of it failed. It is safe to launch at any time: a second backup waits for the first."
    ),
)


backup_verification = dg.define_asset_job(
    "backup_verification",
    selection=dg.AssetSelection.checks_for_assets(logical_backup),
    executor_def=dg.in_process_executor,
    tags=OWNER | {MAX_RUNTIME: FOUR_HOURS, "dagster/kind/postgres": ""},
    description=(
        "Proves the newest backup again, from what lies on disk now, without taking another: for the time between two"
        " nights, and after anything happened to the disk. Red when any proof failed. Changes nothing."
    ),
)


BASE_BACKUPS = dg.AssetSelection.assets(base_backup) | dg.AssetSelection.checks_for_assets(base_backup)

full_backup = dg.define_asset_job(
    "full_backup",
    selection=BASE_BACKUPS | dg.AssetSelection.assets(restore_drill),
    config=dg.RunConfig(ops={"base_backup": BaseBackupConfig(kind=BaseBackupKind.FULL)}),
    executor_def=dg.in_process_executor,
    tags=OWNER | {MAX_RUNTIME: FOUR_HOURS, "dagster/kind/postgres": ""},
    description=(
        "Takes a full base backup, verifies it, looks at every chain, and restores it in a drill. Red when there is no"
        " new one, one is broken or the drill fails. Safe to launch at any time: a second one refuses."
    ),
)

incremental_backup = dg.define_asset_job(
    "incremental_backup",
    selection=BASE_BACKUPS,
    config=dg.RunConfig(ops={"base_backup": BaseBackupConfig(kind=BaseBackupKind.INCREMENTAL)}),
    executor_def=dg.in_process_executor,
    tags=OWNER | {MAX_RUNTIME: FOUR_HOURS, "dagster/kind/postgres": ""},
    description=(
        "Takes a base backup of what changed since the newest one (PostgreSQL 17 and later), verifies it, and looks at"
        " every chain. Red when there is no new one or one is broken: launch full_backup then."
    ),
)

wal_check = dg.define_asset_job(
    "wal_check",
    selection=dg.AssetSelection.checks_for_assets(wal_archive.key),
    executor_def=dg.in_process_executor,
    tags=OWNER | {MAX_RUNTIME: HALF_AN_HOUR, "dagster/kind/postgres": ""},
    description=(
        "Asks whether the log arrives in its archive and is whole there. Red when it does not: what was committed since"
        " would be lost with the primary. Changes nothing but that the primary finishes a segment of its log."
    ),
)

nightly_report = dg.define_asset_job(
    "nightly_report",
    selection=dg.AssetSelection.assets(ops_report),
    executor_def=dg.in_process_executor,
    tags=OWNER | {MAX_RUNTIME: FOUR_HOURS, "dagster/kind/postgres": ""},
    description=(
        "Makes the nightly report (dumps, log, service, standby), whatever became of the night's work. Red when any of"
        " it is unhealthy. Changes nothing but that the primary finishes a segment of its log."
    ),
)

restore_drills = dg.define_asset_job(
    "restore_drills",
    selection=dg.AssetSelection.assets(restore_drill, logical_restore_drill),
    executor_def=dg.in_process_executor,
    tags=OWNER | {MAX_RUNTIME: TWELVE_HOURS, "dagster/kind/postgres": ""},
    description=(
        "Restores the newest base backup and the newest dump into DRILL_DIR, proves both, and removes them again; only"
        " evidence stays. Red when any proof failed or a recovery objective is missed. It is safe to launch at any"
        " time: production is not touched, and two drills never run at once."
    ),
)


at_rest_verification = dg.define_asset_job(
    "at_rest_verification",
    selection=dg.AssetSelection.assets(backups_at_rest),
    executor_def=dg.in_process_executor,
    tags=OWNER | {MAX_RUNTIME: FOUR_HOURS, "dagster/kind/postgres": ""},
    description=(
        "Reads this day's fourteenth of all dumps, base backups and archived log again, here and at the second place."
        " Red when what lies there is not what was written. Safe to launch at any time; changes nothing."
    ),
)


recovery_objectives = dg.define_asset_job(
    "recovery_objectives",
    selection=dg.AssetSelection.checks_for_assets(restore_drill, logical_restore_drill)
    | dg.AssetSelection.checks(backup_age, base_backup_age),
    executor_def=dg.in_process_executor,
    tags=OWNER | {MAX_RUNTIME: HALF_AN_HOUR, "dagster/kind/postgres": ""},
    description=(
        "Judges by the evidence of drills whether recovery time, recovery point and the drills' age are within their"
        " objectives, and how old the newest dump and base backup are. Red also when drills or backups stopped running,"
        " which they themselves cannot tell. Changes nothing."
    ),
)


backup_copies = dg.define_asset_job(
    "backup_copies",
    selection=dg.AssetSelection.assets(backup_copy) | dg.AssetSelection.checks_for_assets(backup_copy),
    executor_def=dg.in_process_executor,
    tags=OWNER | {MAX_RUNTIME: TWELVE_HOURS, "dagster/kind/postgres": ""},
    description=(
        "Copies to BACKUP_COPY_URL what is new of backups and the log, lets go there what retention let go here, and"
        " looks whether all is there. Red when anything is missing or refused. It is safe to launch at any time: it"
        " goes on where the last one stopped, and a second one refuses."
    ),
)


copy_drills = dg.define_asset_job(
    "copy_drills",
    selection=dg.AssetSelection.assets(copy_restore_drill),
    executor_def=dg.in_process_executor,
    tags=OWNER | {MAX_RUNTIME: TWELVE_HOURS, "dagster/kind/postgres": ""},
    description=(
        "Restores the newest base backup and the log from BACKUP_COPY_URL alone, as after the loss of this machine, and"
        " proves it. Red when any proof failed. Safe to launch at any time: two drills never run at once."
    ),
)


class ChecklistConfig(dg.Config):
    """Who answers for it, and where the failover is documented."""

    signed_by: str
    failover_document: str = ""


@dg.op(pool="backup", tags={"dagster/kind/postgres": ""})
def walk_checklist(context: dg.OpExecutionContext, config: ChecklistConfig) -> None:
    """Walk the disaster-recovery checklist with a safety backup, and leave the document in BACKUP_DIR/checklists."""
    settings = load(ChecklistSettings)
    checklist = walk(_scope(settings, config), config.signed_by)
    document, page = write_documents(checklist, settings.backup_dir / DIRECTORY)
    context.add_output_metadata(
        {"status": str(checklist.status), "document": dg.MetadataValue.path(str(document)), "page": page.read_text()}
    )
    if checklist.status is not Status.HEALTHY:
        raise dg.Failure(f"the checklist is {checklist.status}: {document} says which line", allow_retries=False)


def _scope(settings: ChecklistSettings, config: ChecklistConfig) -> ChecklistScope:
    urls = (settings.depot_dump_url, settings.depot_replication_url, settings.depot_replica_url)
    dump_url, primary_url, replica_url = (url.get_secret_value() if url else None for url in urls)
    return ChecklistScope(
        backup_dir=settings.backup_dir,
        archive_dir=settings.wal_archive_dir,
        dump_url=dump_url,
        primary_url=primary_url,
        replica_url=replica_url,
        failover_document=Path(config.failover_document) if config.failover_document else None,
    )


@dg.job(
    executor_def=dg.in_process_executor,
    tags=OWNER | {MAX_RUNTIME: FOUR_HOURS, "dagster/kind/postgres": ""},
    description=(
        "Walks the disaster-recovery checklist: last good backup, log captured, a safety backup taken now, replica"
        " caught up, failover documented. Launch it before a failover or a risky migration, with your name in its"
        " configuration. Red when a line fails or is unknown; the document is left in either case."
    ),
)
def dr_checklist() -> None:
    walk_checklist()


@dg.op(pool="dagster_storage", tags={"dagster/kind/dagster": ""})
def prune_history(context: dg.OpExecutionContext) -> None:
    """Delete finished runs, events and ticks older than DAGSTER_KEEP_RUNS_DAYS, and report how many."""
    pruned = prune(context.instance, load(OrchestratorSettings).dagster_keep_runs_days)
    context.log.info(pruned.model_dump_json())
    context.add_output_metadata(pruned.model_dump(mode="json"))


@dg.job(
    executor_def=dg.in_process_executor,
    tags=OWNER | {MAX_RUNTIME: HALF_AN_HOUR, "dagster/kind/dagster": ""},
    description=(
        "Keeps Dagster's own database small: deletes finished runs, events and ticks older than DAGSTER_KEEP_RUNS_DAYS."
        " Backups are never touched. When this is red nothing is lost; history only grows until it works again."
    ),
)
def dagster_maintenance() -> None:
    prune_history()


nightly_mirror = dg.define_asset_job(
    "nightly_mirror",
    selection=dg.AssetSelection.assets(blob_mirror) | dg.AssetSelection.checks_for_assets(blob_mirror),
    executor_def=dg.in_process_executor,
    tags=OWNER | {MAX_RUNTIME: TWELVE_HOURS, "dagster/kind/filesystem": ""},
    description=(
        "Compares the blob store with its mirror and copies what is missing there, verified. Red when the mirror is not"
        " complete afterwards. Safe to launch at any time: nothing is ever deleted, and what was copied stays."
    ),
)

mirror_check = dg.define_asset_job(
    "mirror_check",
    selection=dg.AssetSelection.checks_for_assets(blob_mirror),
    executor_def=dg.in_process_executor,
    tags=OWNER | {MAX_RUNTIME: HALF_AN_HOUR, "dagster/kind/filesystem": ""},
    description=(
        "Asks whether the mirror keeps up with the store and has all that the catalogue names. Red when content exists"
        " in one copy only for longer than MIRROR_MAX_LAG_SECONDS. Changes nothing."
    ),
)

nightly_push = dg.define_asset_job(
    "nightly_push",
    selection=dg.AssetSelection.assets(blob_object_storage) | dg.AssetSelection.checks_for_assets(blob_object_storage),
    executor_def=dg.in_process_executor,
    tags=OWNER | {MAX_RUNTIME: TWELVE_HOURS, "dagster/kind/s3": ""},
    description=(
        "Compares the blob store with the bucket at BLOB_COPY_URL and sends what is missing there. Red when the bucket"
        " is not complete afterwards. Safe to launch at any time: nothing is ever deleted, and what was sent stays."
    ),
)

bucket_check = dg.define_asset_job(
    "bucket_check",
    selection=dg.AssetSelection.checks_for_assets(blob_object_storage),
    executor_def=dg.in_process_executor,
    tags=OWNER | {MAX_RUNTIME: HALF_AN_HOUR, "dagster/kind/s3": ""},
    description=(
        "Asks whether the bucket at BLOB_COPY_URL keeps up with the store and has all that the catalogue names. Changes"
        " nothing; lists the bucket, which object storage bills for."
    ),
)

nightly_scrub = dg.define_asset_job(
    "nightly_scrub",
    selection=dg.AssetSelection.assets(blob_scrub) | dg.AssetSelection.checks_for_assets(blob_scrub),
    executor_def=dg.in_process_executor,
    tags=OWNER | {MAX_RUNTIME: TWELVE_HOURS, "dagster/kind/filesystem": ""},
    description=(
        "Reads a night's share of the blob store and its copies through, and repairs each from the others. Red when an"
        " object is whole in none, or a copy did not answer. Safe to launch at any time; it goes on where the last one"
        " ended."
    ),
)

weekly_collection = dg.define_asset_job(
    "weekly_collection",
    selection=dg.AssetSelection.assets(blob_collection) | dg.AssetSelection.checks_for_assets(blob_collection),
    executor_def=dg.in_process_executor,
    tags=OWNER | {MAX_RUNTIME: TWELVE_HOURS, "dagster/kind/filesystem": ""},
    description=(
        "Marks content that nothing refers to, and removes what was marked before the time of grace and the oldest kept"
        " backup, if COLLECT_DELETE is true. Red when it refused. Safe to launch at any time: a second one refuses."
    ),
)

nightly_tiering = dg.define_asset_job(
    "nightly_tiering",
    selection=dg.AssetSelection.assets(blob_tiering) | dg.AssetSelection.checks_for_assets(blob_tiering),
    executor_def=dg.in_process_executor,
    tags=OWNER | {MAX_RUNTIME: TWELVE_HOURS, "dagster/kind/s3": ""},
    description=(
        "Moves objects at BLOB_COPY_URL to the storage class that the policy wants, and takes up what an archive has"
        " restored since. Red when objects could not be moved. Safe to launch at any time, also twice at once: where"
        " an object lies is what the bucket says, and what was moved stays."
    ),
)

# Where the settings name a policy, and the operations layer moves or evicts.
WITH_TIERING = (nightly_tiering,)

# Where the settings name a bucket.
WITH_BUCKET = (nightly_push, bucket_check)

# Where the settings name a mirror.
WITH_MIRROR = (nightly_mirror, mirror_check)

ALL = (
    nightly_maintenance,
    nightly_report,
    backup_verification,
    full_backup,
    incremental_backup,
    wal_check,
    restore_drills,
    at_rest_verification,
    recovery_objectives,
    dr_checklist,
    dagster_maintenance,
    nightly_scrub,
    weekly_collection,
)
WITH_COPY = (backup_copies, copy_drills)
"""Where BACKUP_COPY_URL names a second place."""
