"""Recovery objectives, judged by the evidence that drills left: a week without a drill is red as well."""

import dagster as dg

from depot_ops.assets.drill import copy_restore_drill, logical_restore_drill, restore_drill
from depot_ops.checks.result import check_result
from depot_ops.drills.objectives import OF_WHAT_LIES_HERE, Objective
from depot_ops.resources import RestoreDrills

DESCRIPTIONS = {
    Objective.RTO: (
        "In the newest drill, fetching, replaying and opening took no longer than RTO_OBJECTIVE_SECONDS. When this is"
        " red: take base backups more often, so that less log is replayed, or restore on a faster disk."
    ),
    Objective.RPO: (
        "In the newest drill, a commit was in the archive by itself within RPO_OBJECTIVE_SECONDS. When this is red: set"
        " archive_timeout, and look at the collector: a disaster now would lose more than was promised."
    ),
    Objective.AGE: (
        "A drill of a base backup has passed within DRILL_MAX_AGE_SECONDS. When this is red nothing proves that the"
        " depot can be restored: read why drills fail or do not run, and launch restore_drills."
    ),
    Objective.LOGICAL_AGE: (
        "A drill of a dump has passed within DRILL_MAX_AGE_SECONDS. When this is red nothing proves that dumps can be"
        " loaded: read why drills fail or do not run, and launch restore_drills."
    ),
    Objective.COPY_AGE: (
        "A drill from BACKUP_COPY_URL has passed within DRILL_MAX_AGE_SECONDS. When this is red nothing proves that the"
        " depot survives the loss of this machine: read why drills fail or do not run, and launch copy_drills."
    ),
}
ASSETS = {Objective.LOGICAL_AGE: logical_restore_drill, Objective.COPY_AGE: copy_restore_drill}


def _check(objective: Objective) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=ASSETS.get(objective, restore_drill),
        name=objective.value,
        description=DESCRIPTIONS[objective],
        blocking=True,
        compute_kind="postgres",
    )
    def check(drills: RestoreDrills) -> dg.AssetCheckResult:
        return check_result(drills.judge(objective))

    return check


drill_checks = [_check(objective) for objective in OF_WHAT_LIES_HERE]
copy_drill_checks = [_check(Objective.COPY_AGE)]
"""Where BACKUP_COPY_URL names a second place."""
