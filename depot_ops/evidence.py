"""What a check found, in words a person can act on and figures a chart can plot."""

from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

Figures = dict[str, int | float | str]
"""Each key names its unit: size_bytes, duration_seconds."""


class Status(StrEnum):
    """Three different answers: what could not be looked at is not healthy, and not proved broken either."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"

    @property
    def exit_code(self) -> int:
        """What a command that found this exits with: 0 healthy, 1 unhealthy, 3 unknown (2 is a usage error)."""
        return {Status.HEALTHY: 0, Status.UNHEALTHY: 1, Status.UNKNOWN: 3}[self]


class Finding(BaseModel):
    """The result of one check."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    check: str
    status: Status
    detail: str
    figures: Figures = {}
    checked_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))


def worst(findings: Iterable[Finding]) -> Status:
    """The answer for all of them together: one unhealthy decides, then one unknown. None at all is unknown."""
    found = {finding.status for finding in findings}
    for status in (Status.UNHEALTHY, Status.UNKNOWN, Status.HEALTHY):
        if status in found:
            return status
    return Status.UNKNOWN
