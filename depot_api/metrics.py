"""Prometheus metrics of the service: what it counts as it works. What is asked when scraped is in health/gauges.py."""

import os
from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

# Uploads and downloads of gigabytes share the histogram with reads of a row.
LATENCY_BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600)

REQUEST_SECONDS = Histogram(
    "depot_request_seconds", "Time to answer.", ["method", "route", "status"], buckets=LATENCY_BUCKETS_SECONDS
)
UPLOADED_BYTES = Counter("depot_uploaded_bytes", "Content received.")
DOWNLOADED_BYTES = Counter("depot_downloaded_bytes", "Content sent, as coded on the wire.")
DEDUP_SAVED_BYTES = Counter("depot_dedup_saved_bytes", "Content that clients asked about and need not send.")
DAMAGED_READS = Counter("depot_damaged_reads", "Reads that met a damaged or missing object.", ["healed"])
for _healed in ("yes", "no"):
    DAMAGED_READS.labels(_healed)  # from 0 on: an increase is only seen of what was there before
EVICTED_READS = Counter("depot_evicted_reads", "Reads of content that had left the store's disk.", ["answer"])
for _answer in ("fetched", "restoring", "unavailable"):
    EVICTED_READS.labels(_answer)
SUBMITS = Counter("depot_submits", "Changelists submitted.")
SUBMIT_CONFLICTS = Counter("depot_submit_conflicts", "Submits refused for a stale base or a lock.")
POOL_CONNECTIONS = Gauge(
    "depot_pool_connections", "Database connections of all workers.", ["state"], multiprocess_mode="livesum"
)
POOL_WAITING = Gauge(
    "depot_pool_waiting_requests", "Requests that wait for a database connection.", multiprocess_mode="livesum"
)


def exposition(multiprocess_dir: str | None) -> bytes:
    """In the text format. With several workers, the sum over all of them."""
    if not multiprocess_dir:
        return generate_latest(REGISTRY)
    _forget_dead_workers(Path(multiprocess_dir))
    registry = CollectorRegistry()
    MultiProcessCollector(registry, multiprocess_dir)  # type: ignore[no-untyped-call]  # the library has no types here
    return generate_latest(registry)


def _forget_dead_workers(directory: Path) -> None:
    """What a worker counted stays; its gauges would be added to those of the worker that took its place."""
    for path in directory.glob("gauge_live*_*.db"):
        pid = int(path.stem.rpartition("_")[2])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call]  # as above
