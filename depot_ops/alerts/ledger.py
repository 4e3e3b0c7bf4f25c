"""Which alarms fire, and what is still to be told to whom. Knows neither Dagster nor a network.

It is kept as a sensor's cursor. A message leaves it only when its target has taken it: told at least once.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import AwareDatetime, BaseModel, ConfigDict

KEEP = timedelta(days=7)
"""A failed run whose kind is never seen to succeed is no alarm any more after this."""
MAX_QUEUED = 200
MAX_DETAIL_CHARACTERS = 1000


class AlarmState(StrEnum):
    FIRING = "firing"
    RESOLVED = "resolved"


class Alarm(BaseModel):
    """One message. The key is the same for as long as the same thing is wrong."""

    model_config = ConfigDict(frozen=True)

    key: str
    state: AlarmState = AlarmState.FIRING
    title: str
    detail: str
    at: AwareDatetime
    url: str | None = None


class Queued(BaseModel):
    """A message that a target has not taken yet."""

    target: str
    alarm: Alarm


class Ledger(BaseModel):
    """What is known after a look."""

    runs_seen_until: AwareDatetime | None = None
    runs_seen: dict[str, AwareDatetime] = {}
    """Runs that ended around then, and were seen: their times are not in the order in which they are committed."""
    firing: dict[str, Alarm] = {}
    """By key, the last message of it."""
    queue: list[Queued] = []

    def fire(self, alarm: Alarm, targets: Iterable[str], repeat_after: timedelta) -> None:
        """Tell of it, unless it was told within `repeat_after`."""
        told = self.firing.get(alarm.key)
        if told and alarm.at - told.at < repeat_after:
            return
        alarm = alarm.model_copy(update={"detail": alarm.detail[:MAX_DETAIL_CHARACTERS]})
        self.firing[alarm.key] = alarm
        self._queue(alarm, targets)

    def resolve(self, key: str, at: datetime, targets: Iterable[str]) -> None:
        """Tell once that it is over, if it was told."""
        told = self.firing.pop(key, None)
        if told:
            self._queue(told.model_copy(update={"state": AlarmState.RESOLVED, "at": at}), targets)

    def forget_old(self, keys: Sequence[str], now: datetime) -> None:
        """Let go of those of `keys` that nothing has told of for long: nobody would ever resolve them."""
        for key in keys:
            if now - self.firing[key].at > KEEP:
                del self.firing[key]

    def _queue(self, alarm: Alarm, targets: Iterable[str]) -> None:
        self.queue += [Queued(target=target, alarm=alarm) for target in targets]
        del self.queue[:-MAX_QUEUED]  # a target that is gone for days must not fill Dagster's database
