"""Is the depot service up? Asked from outside, as its users see it."""

import json
import time
from typing import Any

import urllib3

from depot_ops.evidence import Figures, Finding, Status

CHECK = "service_health"
TIMEOUT_SECONDS = 10  # a health answer that takes longer than this is of no use to anybody


def check_service(url: str) -> Finding:
    """Ask `url`/health. Healthy is 200 with status ok; another answer is unhealthy, and so is none within 10 s.

    What answers, but not as the depot does, is unknown: the address is probably wrong.
    """
    address = url.rstrip("/") + "/health"
    started = time.monotonic()
    try:
        response = urllib3.request("GET", address, timeout=TIMEOUT_SECONDS, retries=False, redirect=False)
    except (urllib3.exceptions.LocationParseError, urllib3.exceptions.NameResolutionError) as error:
        return Finding(check=CHECK, status=Status.UNKNOWN, detail=f"{address} cannot be asked: {error}")
    except urllib3.exceptions.HTTPError as error:
        return Finding(check=CHECK, status=Status.UNHEALTHY, detail=f"{address} does not answer: {error}")
    seconds = time.monotonic() - started
    figures: Figures = {"latency_seconds": round(seconds, 4), "http_status": response.status}
    try:
        return _judge(response.status, json.loads(response.data), figures)
    except (ValueError, KeyError, TypeError, AttributeError):
        detail = f"{address} answered {response.status}, but not as a depot does: check DEPOT_URL"
        return Finding(check=CHECK, status=Status.UNKNOWN, detail=detail, figures=figures)


def _judge(http_status: int, body: dict[str, Any], figures: Figures) -> Finding:
    broken = {name: part for name, part in body["checks"].items() if part["status"] != "ok"}
    figures |= {f"{name}_{key}": value for name, part in body["checks"].items() for key, value in _numbers(part)}
    if http_status == 200 and body["status"] == "ok" and not broken:  # noqa: PLR2004
        detail = f"every part answers: {', '.join(body['checks'])}"
        return Finding(check=CHECK, status=Status.HEALTHY, detail=detail, figures=figures)
    reasons = "; ".join(f"{name}: {json.dumps(part)}" for name, part in broken.items()) or f"status {body['status']}"
    return Finding(check=CHECK, status=Status.UNHEALTHY, detail=f"HTTP {http_status}: {reasons}", figures=figures)


def _numbers(part: dict[str, Any]) -> list[tuple[str, int | float]]:
    return [(key, value) for key, value in part.items() if isinstance(value, int | float)]
