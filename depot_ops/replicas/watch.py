"""How every node is, asked at once: what the sensor, the checks and the command line have in common."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psycopg

from depot_ops.evidence import Figures, Finding, Status
from depot_ops.replicas.health import Limits, ReplicaHealth, ReplicaStatus, check_replica
from depot_ops.replicas.nodes import Node, Nodes, ReplicaError
from depot_ops.replicas.streaming import connected, facts_of_primary

LAG = "replica_lag"
PROBE_SECONDS = 3
WORKERS = 8
FIGURES = {
    *("lag_bytes", "lag_seconds", "heartbeat_age_seconds", "silent_seconds"),
    *("timeline", "replayed_lsn", "receiver", "slot"),
}


@dataclass(frozen=True, slots=True)
class Watched:
    """One server; the primary has no lag."""

    name: str
    health: ReplicaHealth | None

    @classmethod
    def gone(cls, name: str) -> "Watched":
        return cls.unknown(name, f"no server {name} is known any more: reload the definitions")

    @classmethod
    def unknown(cls, name: str, reason: str) -> "Watched":
        return cls(name, ReplicaHealth(replica=name, status=ReplicaStatus.UNKNOWN, reason=reason))

    def finding(self) -> Finding:
        if self.health is None:
            return Finding(check=LAG, status=Status.HEALTHY, detail="it is the primary", figures={"role": "primary"})
        status = {ReplicaStatus.HEALTHY: Status.HEALTHY, ReplicaStatus.UNKNOWN: Status.UNKNOWN}
        # What is not known is left out: a chart must not show it as zero.
        known = self.health.model_dump(include=FIGURES, exclude_none=True)
        figures: Figures = {"role": "standby", "replica_status": str(self.health.status), **known}
        found = status.get(self.health.status, Status.UNHEALTHY)
        return Finding(check=LAG, status=found, detail=self.health.reason, figures=figures)


def watch(nodes: list[Node], url: str, limits: Limits) -> list[Watched]:
    """All of them side by side, so that one that does not answer holds up no other."""
    primary = _primary_of(nodes, url)

    def look(node: Node) -> Watched:
        return Watched(node.name, None if node == primary else check_replica(node.conninfo(url), url, limits))

    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(look, nodes))


def _primary_of(nodes: list[Node], url: str) -> Node | None:
    """None when nobody answers as the primary: each is then asked as a standby, and says what it is."""
    try:
        with connected(url, PROBE_SECONDS) as connection:
            data = facts_of_primary(connection).data
    except (psycopg.OperationalError, ReplicaError):
        return None
    return next((node for node in nodes if node.data == data), None)


def known_nodes(directory: Path | None) -> list[Node]:
    """Those to watch: none where there is no directory of nodes, or only a primary in it."""
    nodes = Nodes(directory).all() if directory and directory.is_dir() else []
    return nodes if len(nodes) > 1 else []
