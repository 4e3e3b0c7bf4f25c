"""Prometheus metrics of the service."""

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

# Uploads and downloads of gigabytes share the histogram with reads of a row.
LATENCY_BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600)

REQUEST_SECONDS = Histogram(
    "depot_request_seconds", "Time to answer.", ["method", "route", "status"], buckets=LATENCY_BUCKETS_SECONDS
)
UPLOADED_BYTES = Counter("depot_uploaded_bytes", "Content received.")
DOWNLOADED_BYTES = Counter("depot_downloaded_bytes", "Content sent, as coded on the wire.")
DAMAGED_READS = Counter("depot_damaged_reads", "Reads that met a damaged or missing object.", ["healed"])
SUBMITS = Counter("depot_submits", "Changelists submitted.")
SUBMIT_CONFLICTS = Counter("depot_submit_conflicts", "Submits refused for a stale base or a lock.")


def exposition(multiprocess_dir: str | None) -> bytes:
    """In the text format. With several workers, the sum over all of them."""
    if not multiprocess_dir:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, multiprocess_dir)  # type: ignore[no-untyped-call]  # the library has no types here
    return generate_latest(registry)
