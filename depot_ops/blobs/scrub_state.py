"""When each part of a copy was last read through, and what is known to be damaged: `scrub.json` in the copy's root.

It lies beside what it speaks of, so that it outlives the depot's database.
"""

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, Field, ValidationError

from depot_ops.blobs.inventory import PREFIXES
from depot_ops.durable import write_whole

STATE_NAME = "scrub.json"


class ScrubState(BaseModel):
    """What a copy's scrubs came to."""

    schema_version: Literal[1] = 1
    since: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    """From when on what was never read through counts as waiting."""
    verified_at: dict[str, AwareDatetime] = {}
    """By hash prefix: when the last pass over it began. Every object of that prefix was read after that."""
    damaged: dict[str, str] = {}
    """What could not be repaired, and what was seen."""

    def verified(self, prefix: str) -> datetime:
        return self.verified_at.get(prefix, self.since)

    @property
    def never_verified(self) -> list[str]:
        """The prefixes that no pass has come to."""
        return [prefix for prefix in PREFIXES if prefix not in self.verified_at]

    @property
    def oldest_verified(self) -> datetime | None:
        """Of the prefixes that were read through; None when none was."""
        return min(self.verified_at.values(), default=None)

    def due(self, period: timedelta, now: datetime, *, catch_up: bool = False) -> list[str]:
        """A day's share of the prefixes, the oldest first, and all that would otherwise be late tomorrow.

        With `catch_up` also whatever was never read: nothing is known of it yet.
        """
        by_age = sorted(PREFIXES, key=lambda prefix: (self.verified(prefix), prefix))
        share = math.ceil(len(PREFIXES) / max(1, period.days))
        late = now - period + timedelta(days=1)
        never = set(self.never_verified) if catch_up else set()
        return [
            prefix for n, prefix in enumerate(by_age) if n < share or self.verified(prefix) < late or prefix in never
        ]


def load_state(root: Path) -> ScrubState | None:
    """None when the copy was never scrubbed, or what is known of it cannot be read: then all of it counts as new."""
    try:
        return parse_state((root / STATE_NAME).read_bytes())
    except FileNotFoundError:
        return None


def parse_state(content: bytes) -> ScrubState | None:
    """None when it is none."""
    try:
        return ScrubState.model_validate_json(content)
    except ValidationError:
        return None


def save_state(root: Path, state: ScrubState) -> None:
    write_durably(root / STATE_NAME, state)


def write_durably(path: Path, content: BaseModel) -> None:
    """Whole or not at all, also after a crash."""
    write_whole(path, content.model_dump_json(indent=1) + "\n")
