"""/health and /metrics: for orchestrators and monitoring, without sign-in."""

import asyncio
import os

from fastapi import APIRouter, Response, status

from depot_api.depot import DepotState
from depot_api.health import gauges, service
from depot_api.health.models import Health, HealthStatus, Liveness
from depot_api.metrics import exposition

router = APIRouter(tags=["health"])


@router.get(
    "/health",
    summary="Can the service do its work?",
    responses={503: {"model": Health, "description": "Not ready; each check says why."}},
)
async def get_health(depot: DepotState, response: Response) -> Health:
    health = await service.health(depot)
    if health.status is not HealthStatus.OK:
        response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
        response.headers["Retry-After"] = "5"
    return health


@router.get("/health/live", summary="Is the process alive?")
async def get_liveness() -> Liveness:
    return Liveness()


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
async def get_metrics(depot: DepotState) -> Response:
    counted = await asyncio.to_thread(exposition, os.environ.get("PROMETHEUS_MULTIPROC_DIR"))
    return Response(counted + await gauges.asked(depot), media_type="text/plain; version=0.0.4; charset=utf-8")
