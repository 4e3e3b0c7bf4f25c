"""The servers that replicate the depot's database: each is observed, whichever of them is the primary."""

from collections.abc import Sequence

import dagster as dg

from depot_ops.replicas.watch import Watched

WRITABLE_PRIMARY = dg.AssetKey("writable_primary")


def replica_key(name: str) -> dg.AssetKey:
    return dg.AssetKey(["replica", name])


def replica_assets(names: Sequence[str]) -> list[dg.AssetSpec]:
    """One for each server known when the definitions are loaded; reload them after making another."""
    return _writable_primary(names) + [
        dg.AssetSpec(
            replica_key(name),
            group_name="replication",
            owners=["team:depot-operations"],
            kinds={"postgres"},
            description=(
                f"The server {name}, the primary or a standby. The sensor replica_lag observes it: lag in bytes, and in"
                " seconds by heartbeats that are written through the primary. A figure that nobody knows is left out,"
                " never zero."
            ),
        )
        for name in names
    ]


def _writable_primary(names: Sequence[str]) -> list[dg.AssetSpec]:
    if not names:
        return []
    spec = dg.AssetSpec(
        WRITABLE_PRIMARY,
        group_name="replication",
        owners=["team:depot-operations"],
        kinds={"postgres"},
        description=(
            "The one server that takes writes, whichever it is now. The sensor replica_lag asks every server twice a"
            " minute (check single_primary). When it is lost, Patroni replaces it where FAILOVER_PROVIDER says so; else"
            " the sensor primary_health watches it all the time, and does where ASSISTED_FAILOVER is on."
        ),
    )
    return [spec]


def observation(watched: Watched) -> dg.AssetObservation:
    """With figures that the UI plots over time."""
    finding = watched.finding()
    metadata = {"status": str(finding.status), **finding.figures}
    return dg.AssetObservation(replica_key(watched.name), description=finding.detail, metadata=metadata)
