"""What is asked when Prometheus scrapes: the database in one cheap query, the store for its room.

A part that does not answer says so in its `_up` metric and is otherwise absent: the scrape itself always succeeds.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from psycopg.rows import DictRow
from psycopg_pool import PoolTimeout

from depot_api.blobstore.errors import BlobError
from depot_api.blobstore.store import BlobStore
from depot_api.database.pool import Database, fetch_one
from depot_api.database.revision import expected_revision
from depot_api.depot import Depot
from depot_api.metrics import POOL_CONNECTIONS, POOL_WAITING

POOL_INTERVAL_SECONDS = 5.0
ASK = "SELECT g.*, (SELECT version_num FROM alembic_version) AS revision FROM depot_gauges() g"


async def asked(depot: Depot) -> bytes:
    """In the text format, like `metrics.exposition`, with which it shares no name."""
    row, free_bytes = await asyncio.gather(_ask_database(depot.database), asyncio.to_thread(_free_bytes, depot.store))
    registry = CollectorRegistry()

    def gauge(name: str, help_text: str, value: float) -> None:
        Gauge(name, help_text, registry=registry).set(value)

    gauge("depot_database_up", "Whether the database answered this scrape within 5 s.", row is not None)
    gauge("depot_store_up", "Whether the blob store answered this scrape.", free_bytes is not None)
    if free_bytes is not None:
        gauge("depot_store_free_bytes", "Room left in the blob store.", free_bytes)
    if row is not None:
        gauge("depot_locks_held", "Locks whose lease has not ended.", row["locks_held"])
        gauge("depot_merge_job_oldest_queued_seconds", "Age of the oldest queued job.", row["oldest_queued_seconds"])
        jobs = Gauge("depot_merge_jobs", "Merge jobs that are not finished.", ["status"], registry=registry)
        for status in ("queued", "running", "staged"):
            jobs.labels(status).set(row[f"jobs_{status}"])
        current, expected = row["revision"], expected_revision()
        gauge("depot_schema_current", "Whether the schema is what this code needs.", current == expected)
        info = Gauge("depot_schema_info", "Migration versions.", ["current", "expected"], registry=registry)
        info.labels(current, expected).set(1)
    return generate_latest(registry)


@asynccontextmanager
async def pool_watched(database: Database) -> AsyncIterator[None]:
    """Each worker tells of its own connections; whichever of them is scraped adds them up."""
    task = asyncio.create_task(_watch_pool(database))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _watch_pool(database: Database) -> None:
    while True:
        stats = database.stats()
        idle = stats["pool_available"]
        POOL_CONNECTIONS.labels("idle").set(idle)
        POOL_CONNECTIONS.labels("busy").set(stats["pool_size"] - idle)
        POOL_WAITING.set(stats["requests_waiting"])
        await asyncio.sleep(POOL_INTERVAL_SECONDS)


async def _ask_database(database: Database) -> DictRow | None:
    try:
        async with database.anonymous() as tx:
            return await fetch_one(tx, ASK)
    except (psycopg.Error, PoolTimeout):  # also a schema that is not migrated, which /health explains
        return None


def _free_bytes(store: BlobStore) -> int | None:
    try:
        return store.free_bytes()
    except (BlobError, OSError):
        return None
