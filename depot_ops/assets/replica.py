"""The servers that replicate the depot's database: each is observed, whichever of them is the primary."""

from collections.abc import Sequence

import dagster as dg

from depot_ops.replicas.nodes import Node
from depot_ops.replicas.watch import Watched

WRITABLE_PRIMARY = dg.AssetKey("writable_primary")


def replica_key(node: Node) -> dg.AssetKey:
    return dg.AssetKey(["replica", node.name])


def replica_assets(nodes: Sequence[Node]) -> list[dg.AssetSpec]:
    """One for each node in REPLICA_DIR when the definitions are loaded; reload them after making another."""
    return _writable_primary(nodes) + [
        dg.AssetSpec(
            replica_key(node),
            group_name="replication",
            owners=["team:depot-operations"],
            kinds={"postgres"},
            description=(
                f"The server {node.name} on port {node.port}, the primary or a standby. The sensor replica_lag observes"
                " it: lag in bytes, and in seconds by heartbeats that are written through the primary. A figure that"
                " nobody knows is left out, never zero."
            ),
        )
        for node in nodes
    ]


def _writable_primary(nodes: Sequence[Node]) -> list[dg.AssetSpec]:
    if not nodes:
        return []
    spec = dg.AssetSpec(
        WRITABLE_PRIMARY,
        group_name="replication",
        owners=["team:depot-operations"],
        kinds={"postgres"},
        description=(
            "The one server of REPLICA_DIR that takes writes, whichever it is now. The sensor replica_lag asks every"
            " server twice a minute (check single_primary); the sensor primary_health watches it all the time and,"
            " where ASSISTED_FAILOVER is on, replaces it when it is lost."
        ),
    )
    return [spec]


def observation(watched: Watched) -> dg.AssetObservation:
    """With figures that the UI plots over time."""
    finding = watched.finding()
    metadata = {"status": str(finding.status), **finding.figures}
    return dg.AssetObservation(replica_key(watched.node), description=finding.detail, metadata=metadata)
