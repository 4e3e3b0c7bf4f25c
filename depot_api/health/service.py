"""Whether the service can do its work, and if not, why."""

import asyncio

import psycopg
from psycopg_pool import PoolTimeout

from depot_api.blobstore.errors import BlobError
from depot_api.blobstore.store import BlobStore
from depot_api.database.pool import fetch_one
from depot_api.database.revision import expected_revision
from depot_api.depot import Depot
from depot_api.health.models import Checks, DatabaseCheck, Health, HealthStatus, MigrationsCheck, StorageCheck

OK, UNAVAILABLE = HealthStatus.OK, HealthStatus.UNAVAILABLE


async def health(depot: Depot) -> Health:
    (database, migrations), storage = await asyncio.gather(
        _database(depot), asyncio.to_thread(_storage, depot.store, depot.settings.storage_min_free_bytes)
    )
    healthy = all(check.status is OK for check in (database, migrations, storage))
    return Health(
        status=OK if healthy else UNAVAILABLE,
        checks=Checks(database=database, storage=storage, migrations=migrations),
    )


async def _database(depot: Depot) -> tuple[DatabaseCheck, MigrationsCheck]:
    expected = expected_revision()
    try:
        async with depot.database.anonymous() as tx:
            row = await fetch_one(tx, "SELECT version_num FROM alembic_version")
    except psycopg.errors.UndefinedTable:
        row = None
    except (psycopg.OperationalError, PoolTimeout) as error:
        reason = f"The database does not answer: {error}"
        return (
            DatabaseCheck(status=UNAVAILABLE, reason=reason),
            MigrationsCheck(
                status=UNAVAILABLE, reason="Unknown while the database does not answer.", expected=expected
            ),
        )
    current = row["version_num"] if row else None
    if current == expected:
        return DatabaseCheck(status=OK), MigrationsCheck(status=OK, current=current, expected=expected)
    reason = f"The schema is at {current}, this code needs {expected}. Run `depot-ops migrate`."
    return (
        DatabaseCheck(status=OK),
        MigrationsCheck(status=UNAVAILABLE, reason=reason, current=current, expected=expected),
    )


def _storage(store: BlobStore, min_free_bytes: int) -> StorageCheck:
    try:
        free_bytes = store.free_bytes()
        store.probe_writable()
    except (BlobError, OSError) as error:
        return StorageCheck(status=UNAVAILABLE, reason=f"The blob store cannot be written: {error}")
    if free_bytes < min_free_bytes:
        reason = f"{free_bytes} bytes are free, less than STORAGE_MIN_FREE_BYTES={min_free_bytes}. Make room."
        return StorageCheck(status=UNAVAILABLE, reason=reason, free_bytes=free_bytes)
    return StorageCheck(status=OK, free_bytes=free_bytes)
