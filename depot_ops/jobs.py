"""What runs by itself, and what a person launches from the UI or with `depot-ops run`."""

import dagster as dg

from depot_ops.assets.backup import logical_backup
from depot_ops.assets.drill import logical_restore_drill, restore_drill
from depot_ops.assets.service import depot_service
from depot_ops.maintenance import prune
from depot_ops.settings import OrchestratorSettings, load

OWNER = {"owner": "depot-operations"}
MAX_RUNTIME = "dagster/max_runtime"  # seconds, after which run monitoring ends the run
TWELVE_HOURS, FOUR_HOURS, HALF_AN_HOUR = "43200", "14400", "1800"

nightly_maintenance = dg.define_asset_job(
    "nightly_maintenance",
    selection=dg.AssetSelection.assets(logical_backup) | dg.AssetSelection.checks_for_assets(depot_service.key),
    executor_def=dg.in_process_executor,
    tags=OWNER | {MAX_RUNTIME: FOUR_HOURS, "dagster/kind/postgres": ""},
    description=(
        "Takes a logical backup, proves the newest one, and asks the depot how it is. Red when any of it failed. It is"
        " safe to launch at any time: a second backup waits for the first."
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


recovery_objectives = dg.define_asset_job(
    "recovery_objectives",
    selection=dg.AssetSelection.checks_for_assets(restore_drill, logical_restore_drill),
    executor_def=dg.in_process_executor,
    tags=OWNER | {MAX_RUNTIME: HALF_AN_HOUR, "dagster/kind/postgres": ""},
    description=(
        "Judges by the evidence of drills whether recovery time, recovery point and the drills' age are within their"
        " objectives. Red also when drills stopped running, which the drills themselves cannot tell. Changes nothing."
    ),
)


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
