"""Findings as Prometheus reads them: the answer of each check, and the figures that have a name here.

A figure that nobody knows is absent; `depot_ops_check_unknown` says that it should be there.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from depot_ops.evidence import Status
from depot_ops.metrics.seen import Seen

Labels = dict[str, str]


@dataclass(frozen=True, slots=True)
class Exposed:
    """A figure of a check as a metric."""

    check: str
    figure: str
    name: str
    help: str
    labels: Labels = field(default_factory=dict)


BACKUP_AGE = "Since the newest backup of this kind was taken."
DRILL_AGE = "Since the newest drill of this kind that passed."
REPLICA_BYTES = "How far the standby has replayed behind the primary."
EXPOSED = (
    Exposed("backup_age", "age_seconds", "depot_ops_backup_age_seconds", BACKUP_AGE, {"kind": "dump"}),
    Exposed("base_backup_age", "age_seconds", "depot_ops_backup_age_seconds", BACKUP_AGE, {"kind": "base"}),
    Exposed("complete", "size_bytes", "depot_ops_backup_size_bytes", "Of the newest backup.", {"kind": "dump"}),
    Exposed(
        "chain_intact", "stored_size_bytes", "depot_ops_backup_size_bytes", "Of the newest backup.", {"kind": "base"}
    ),
    Exposed("drill_age", "age_seconds", "depot_ops_drill_age_seconds", DRILL_AGE, {"kind": "base"}),
    Exposed("logical_drill_age", "age_seconds", "depot_ops_drill_age_seconds", DRILL_AGE, {"kind": "dump"}),
    Exposed("rto_within_objective", "rto_seconds", "depot_ops_rto_seconds", "Recovery time of the newest drill."),
    Exposed("rto_within_objective", "objective_seconds", "depot_ops_rto_objective_seconds", "What is promised."),
    Exposed("rpo_within_objective", "rpo_seconds", "depot_ops_rpo_seconds", "Recovery point of the newest drill."),
    Exposed("rpo_within_objective", "objective_seconds", "depot_ops_rpo_objective_seconds", "What is promised."),
    Exposed("wal_freshness", "waited_seconds", "depot_ops_wal_lag_seconds", "A finished segment's way to the archive."),
    Exposed("wal_continuity", "missing_segments", "depot_ops_wal_gap_segments", "Missing in the archive of the log."),
    Exposed("wal_continuity", "segments", "depot_ops_wal_archived_segments", "In the archive of the log."),
    Exposed("wal_intact", "damaged_files", "depot_ops_wal_damaged_files", "In the archive of the log."),
    Exposed("archiver_backlog", "waiting_files", "depot_ops_archiver_waiting_files", "In pg_wal, to be archived."),
    Exposed("archiver_backlog", "oldest_seconds", "depot_ops_archiver_oldest_seconds", "Since the oldest waits."),
    Exposed("spool_backlog", "waiting_files", "depot_ops_spool_waiting_files", "Of the log, for the collector."),
    Exposed("spool_backlog", "oldest_seconds", "depot_ops_spool_oldest_seconds", "Since the oldest waits."),
    Exposed("replica_lag", "lag_bytes", "depot_ops_replica_lag_bytes", REPLICA_BYTES),
    Exposed("replica_health", "behind_bytes", "depot_ops_replica_lag_bytes", REPLICA_BYTES),
    Exposed("replica_lag", "lag_seconds", "depot_ops_replica_lag_seconds", "By heartbeats through the primary."),
    Exposed("replica_lag", "heartbeat_age_seconds", "depot_ops_replica_heartbeat_age_seconds", "Newest that arrived."),
    Exposed("single_primary", "writable_nodes", "depot_ops_primaries", "Servers that take writes: one."),
    Exposed("single_primary", "silent_nodes", "depot_ops_silent_nodes", "Servers that run and do not answer."),
    Exposed("mirror_lag", "objects", "depot_ops_mirror_waiting_objects", "Not in the blob store's mirror yet."),
    Exposed("mirror_lag", "size_bytes", "depot_ops_mirror_waiting_bytes", "Not in the blob store's mirror yet."),
    Exposed("mirror_lag", "oldest_unmirrored_seconds", "depot_ops_mirror_lag_seconds", "Since the oldest waits."),
    Exposed("scrub_age", "oldest_verification_seconds", "depot_ops_blob_oldest_verification_seconds", "Of any object."),
    Exposed("scrub_age", "damaged_objects", "depot_ops_blob_damaged_objects", "Known, of both copies."),
    Exposed("service_health", "latency_seconds", "depot_ops_service_latency_seconds", "Of the depot's GET /health."),
)
STATES: tuple[tuple[str, str, Callable[[Seen], float]], ...] = (
    ("healthy", "Whether the check passed.", lambda one: one.finding.status is Status.HEALTHY),
    ("unknown", "Whether the check could not find out.", lambda one: one.finding.status is Status.UNKNOWN),
    ("timestamp_seconds", "When the check was made.", lambda one: one.finding.checked_at.timestamp()),
)
STATES_IN_DAGSTER = STATES[:2]


class Findings(Collector):
    """What was seen last. Asks nothing itself, so that a scrape never waits."""

    def __init__(self, seen: Callable[[], list[Seen]]) -> None:
        self._seen = seen

    def collect(self) -> Iterable[GaugeMetricFamily]:
        everything = self._seen()
        seen = [one for one in everything if not one.asset]
        yield from (_state(seen, *state) for state in STATES)
        yield from (_state_in_dagster([one for one in everything if one.asset], *state) for state in STATES_IN_DAGSTER)
        families: dict[str, GaugeMetricFamily] = {}
        for exposed in EXPOSED:
            labels = [*exposed.labels, "node"]
            family = families.setdefault(exposed.name, GaugeMetricFamily(exposed.name, exposed.help, labels=labels))
            for one in seen:
                figure = one.finding.figures.get(exposed.figure)
                if one.finding.check == exposed.check and figure is not None:
                    family.add_metric([*exposed.labels.values(), one.node], float(figure))
        yield from families.values()


def _state(seen: list[Seen], name: str, text: str, value: Callable[[Seen], float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"depot_ops_check_{name}", text, labels=["check", "node"])
    for one in seen:
        family.add_metric([one.finding.check, one.node], value(one))
    return family


def _state_in_dagster(seen: list[Seen], name: str, text: str, value: Callable[[Seen], float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"depot_ops_dagster_check_{name}", f"{text} By its last run.", labels=["check", "asset"])
    for one in seen:
        family.add_metric([one.finding.check, one.asset], value(one))
    return family


def registry_of(seen: Callable[[], list[Seen]]) -> CollectorRegistry:
    """For an endpoint; what it exposes are `seen`'s answers at each scrape."""
    registry = CollectorRegistry()
    registry.register(Findings(seen))
    return registry


def exposition(seen: list[Seen]) -> str:
    """In the text format."""
    return generate_latest(registry_of(lambda: seen)).decode()
