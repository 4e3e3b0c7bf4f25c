"""Does each standby follow its primary closely enough to take its place?"""

from collections.abc import Sequence

import dagster as dg

from depot_ops.assets.replica import WRITABLE_PRIMARY, replica_key
from depot_ops.checks.result import check_result
from depot_ops.replicas.single_primary import CHECK
from depot_ops.replicas.synchronous import CHECK as SYNCHRONOUS
from depot_ops.replicas.watch import LAG
from depot_ops.resources import Replicas


def replica_checks(names: Sequence[str]) -> list[dg.AssetChecksDefinition]:
    return [_single_primary_check(), _synchronous_check(), *map(_lag_check, names)] if names else []


def _synchronous_check() -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=WRITABLE_PRIMARY,
        name=SYNCHRONOUS,
        compute_kind="postgres",
        description=(
            "In a synchronous mode a standby has every acknowledged commit. Red while it is degraded (from the position"
            " that it names on, what is acknowledged is on the primary only) and while no standby confirms: bring one"
            " back, and see that `depot-ops replica keep-synchronous` runs. Green where the mode is off."
        ),
    )
    def synchronous_replication(replicas: Replicas) -> dg.AssetCheckResult:
        return check_result(replicas.check_synchronous())

    return synchronous_replication


def _single_primary_check() -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=WRITABLE_PRIMARY,
        name=CHECK,
        blocking=True,
        compute_kind="postgres",
        description=(
            "One server alone takes writes. Red with more than one: two histories of the depot are being written; stop"
            " all but the one of the last cluster epoch at once, then `depot-ops replica rejoin` them. Red with none:"
            " start the primary, or promote a standby. Also red when a server runs and does not answer."
        ),
    )
    def single_primary(replicas: Replicas) -> dg.AssetCheckResult:
        return check_result(replicas.count_primaries())

    return single_primary


def _lag_check(name: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=replica_key(name),
        name=LAG,
        compute_kind="postgres",
        description=(
            "It streams, and is within REPLAY_LAG_THRESHOLD_SECONDS and REPLAY_LAG_THRESHOLD_BYTES of the primary; the"
            " primary itself passes. When this is red, a failover now would lose writes or is impossible: look at"
            " `depot-ops replica check` and the server's log, then at `depot-ops replica rejoin` or `rebuild`."
        ),
    )
    def replica_lag(replicas: Replicas) -> dg.AssetCheckResult:
        return check_result(replicas.watch([name])[0].finding())

    return replica_lag
