"""create_app(): wiring and nothing else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from depot_api import errors
from depot_api.assets.routes import router as assets
from depot_api.assets.routes import search_router as search
from depot_api.blobstore.store import BlobStore
from depot_api.branches.routes import router as branches
from depot_api.changelists.routes import router as changelists
from depot_api.database.pool import Database
from depot_api.depot import Depot
from depot_api.health.routes import router as health
from depot_api.identity.routes import router as identity
from depot_api.locks.routes import router as locks
from depot_api.logs import configure as configure_logs
from depot_api.middleware import RequestContext
from depot_api.objects.routes import router as objects
from depot_api.obliterations.routes import router as obliterations
from depot_api.projects.routes import router as projects
from depot_api.reviews.routes import router as reviews
from depot_api.settings import Settings


def create_app(settings: Settings | None = None) -> FastAPI:
    """The service, with settings from the environment. Raises pydantic's ValidationError when they cannot be used."""
    configure_logs()
    settings = settings or Settings()
    depot = Depot(
        settings=settings,
        database=Database(settings.database_conninfo, settings.db_pool_min, settings.db_pool_max),
        store=BlobStore(settings.asset_storage_path),
    )
    depot.store.prepare()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await depot.database.open()
        yield
        await depot.database.close()

    app = FastAPI(
        title="asset-depot",
        version="0.1.0",
        description="The depot where a game studio keeps every asset.",
        lifespan=lifespan,
    )
    app.state.depot = depot
    for router in (
        health,
        identity,
        projects,
        assets,
        search,
        objects,
        branches,
        changelists,
        reviews,
        obliterations,
        locks,
    ):
        app.include_router(router)
    errors.install(app)
    app.add_middleware(RequestContext)
    return app
