"""Structured logs: one JSON object a line on standard error, of ours and of the libraries."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

STAMPS: list[structlog.typing.Processor] = [
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]
RENDERERS: list[structlog.typing.Processor] = [
    structlog.processors.format_exc_info,
    structlog.processors.JSONRenderer(),
]


def configure() -> None:
    structlog.configure(
        processors=[*STAMPS, *RENDERERS],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),  # a line is one write, whole among other workers'
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*STAMPS, _add_logger], processors=[_remove_record, *RENDERERS]
        )
    )
    logging.root.handlers = [handler]
    logging.root.setLevel(logging.WARNING)
    logging.getLogger("uvicorn").setLevel(logging.INFO)


def _add_logger(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Which library speaks."""
    event["logger"] = event["_record"].name
    return event


def _remove_record(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return structlog.stdlib.ProcessorFormatter.remove_processors_meta(_logger, _method, event)
