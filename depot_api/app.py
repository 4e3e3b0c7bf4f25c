"""create_app(): wiring and nothing else."""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from depot_api import errors, problems
from depot_api.assets.routes import router as assets
from depot_api.assets.routes import search_router as search
from depot_api.audit.routes import router as audit
from depot_api.blobstore.bucket import BucketCopy, for_waiting_readers
from depot_api.blobstore.store import BlobStore
from depot_api.branches.routes import router as branches
from depot_api.changelists.routes import router as changelists
from depot_api.database.pool import Database
from depot_api.depot import Depot
from depot_api.epochs import FILE_NAME as EPOCH_FILE
from depot_api.epochs import EpochFile
from depot_api.events.routes import router as events
from depot_api.health.gauges import pool_watched
from depot_api.health.routes import router as health
from depot_api.identity.routes import router as identity
from depot_api.locks.routes import router as locks
from depot_api.logs import configure as configure_logs
from depot_api.merges.routes import router as merges
from depot_api.middleware import RequestContext
from depot_api.objects.routes import router as objects
from depot_api.obliterations.routes import router as obliterations
from depot_api.outbox.worker import OutboxWorker
from depot_api.permissions.routes import router as permissions
from depot_api.projects.routes import router as projects
from depot_api.rate_limit import RateLimit
from depot_api.reviews.routes import router as reviews
from depot_api.s3 import ObjectStorageSettings
from depot_api.settings import Settings
from depot_api.shelves.routes import router as shelves
from depot_api.storage.routes import router as storage
from depot_api.users.routes import router as users
from depot_api.webhooks.routes import router as webhooks
from depot_api.workspaces.routes import router as workspaces

# The framework tries one route after the other, so what is asked most comes first.
ROUTERS = (
    assets,
    branches,
    changelists,
    objects,
    health,
    identity,
    users,
    projects,
    storage,
    permissions,
    search,
    locks,
    merges,
    workspaces,
    shelves,
    reviews,
    obliterations,
    events,
    audit,
    webhooks,
)


def create_app(settings: Settings | None = None) -> FastAPI:
    """The service, with settings from the environment. Raises pydantic's ValidationError when they cannot be used."""
    configure_logs()
    settings = settings or Settings()
    depot = Depot(
        settings=settings,
        database=Database(
            settings.database_conninfo,
            settings.db_pool_min,
            settings.db_pool_max,
            EpochFile(settings.asset_storage_path / EPOCH_FILE),
            settings.commit_timeout_seconds,
        ),
        store=BlobStore(settings.asset_storage_path, settings.asset_storage_replica_path, _bucket(settings)),
    )
    depot.store.prepare()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await depot.database.open()
        depot.stopping.watch_signals()
        # What the app is made of stays: each full collection that walks it would hold every request up for 0.1 s.
        gc.collect()
        gc.freeze()
        async with pool_watched(depot.database), OutboxWorker(depot).running():
            yield
        await depot.database.close()

    app = FastAPI(
        title="asset-depot",
        version="0.1.0",
        description="The depot where a game studio keeps every asset.",
        lifespan=lifespan,
    )
    app.state.depot = depot
    for router in ROUTERS:
        app.include_router(router)
    errors.install(app)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]  # the framework's documented way
    if settings.rate_limit_requests_per_second:
        app.add_middleware(RateLimit, per_second=settings.rate_limit_requests_per_second)
    app.add_middleware(RequestContext)
    return app


def _bucket(settings: Settings) -> BucketCopy | None:
    url = settings.blob_copy_url
    return BucketCopy(url, for_waiting_readers(ObjectStorageSettings())) if url else None


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes, tags=app.openapi_tags
        )
        app.openapi_schema = problems.describe(document)
    return app.openapi_schema
