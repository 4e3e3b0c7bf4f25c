"""Is there one server that takes writes? More than one is an alarm of its own, whatever else looks well."""

import psycopg

from depot_ops.evidence import Figures, Finding, Status
from depot_ops.replicas import handover as handovers
from depot_ops.replicas.create import Place
from depot_ops.replicas.nodes import Nodes, ReplicaBusy, ReplicaError
from depot_ops.replicas.streaming import connected

CHECK = "single_primary"
PROBE_SECONDS = 3


def check_single_primary(place: Place) -> Finding:
    """Ask every known node. One that runs and does not answer makes it unknown: it may take writes of others."""
    writable, silent = [], []
    try:
        for node in place.nodes.all():
            try:
                with connected(node.conninfo(place.url), PROBE_SECONDS) as connection:
                    row = connection.execute("SELECT NOT pg_is_in_recovery()").fetchone()
            except psycopg.OperationalError:
                if node.is_remote or place.server(node).is_running():
                    silent.append(node.name)
                continue
            if row and row[0]:
                writable.append(node.name)
        left_over = _left_over(place.nodes)
    except ReplicaError as error:
        return Finding(check=CHECK, status=Status.UNKNOWN, detail=str(error))
    return finding(writable, silent, left_over)


def finding(writable: list[str], silent: list[str], left_over: str | None = None) -> Finding:
    """Of the servers that take writes, of those of which nobody knows, and of a switchover that was interrupted."""
    figures: Figures = {"writable_nodes": len(writable), "silent_nodes": len(silent)}
    status, detail = _judged(writable, silent)
    if left_over and status is not Status.UNKNOWN:
        status, detail = Status.UNHEALTHY, f"{detail}; {left_over}"
    return Finding(check=CHECK, status=status, detail=detail, figures=figures)


def _judged(writable: list[str], silent: list[str]) -> tuple[Status, str]:
    if len(writable) > 1:
        named = ", ".join(writable)
        return Status.UNHEALTHY, f"{named} take writes: stop all but the one of the last epoch, then rejoin them"
    if silent:
        return Status.UNKNOWN, f"{', '.join(silent)} may run and does not answer: nobody knows whether it takes writes"
    if not writable:
        return Status.UNHEALTHY, "no node takes writes: start the primary, or promote a standby"
    return Status.HEALTHY, f"{writable[0]} alone takes writes"


def _left_over(nodes: Nodes) -> str | None:
    """A switchover that nobody is at: where it was killed, writes may be refused."""
    if handovers.under_way(nodes) is None:
        return None
    try:
        with nodes.locked():
            handover = handovers.under_way(nodes)
    except ReplicaBusy:
        return None
    if handover is None:
        return None
    return f"{handover.described()} was interrupted: `depot-ops replica switchover {handover.target}` takes it up"
