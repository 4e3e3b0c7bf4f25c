"""Does each standby follow its primary closely enough to take its place?"""

from collections.abc import Sequence

import dagster as dg

from depot_ops.assets.replica import replica_key
from depot_ops.checks.result import check_result
from depot_ops.replicas.nodes import Node
from depot_ops.replicas.watch import LAG
from depot_ops.resources import Replicas


def replica_checks(nodes: Sequence[Node]) -> list[dg.AssetChecksDefinition]:
    return [_lag_check(node) for node in nodes]


def _lag_check(node: Node) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=replica_key(node),
        name=LAG,
        compute_kind="postgres",
        description=(
            "It streams, and is within REPLAY_LAG_THRESHOLD_SECONDS and REPLAY_LAG_THRESHOLD_BYTES of the primary; the"
            " primary itself passes. When this is red, a failover now would lose writes or is impossible: look at"
            " `depot-ops replica check` and the server's log, then at `depot-ops replica rejoin` or `rebuild`."
        ),
    )
    def replica_lag(replicas: Replicas) -> dg.AssetCheckResult:
        return check_result(replicas.watch([node])[0].finding())

    return replica_lag
