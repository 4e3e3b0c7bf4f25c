"""How long work tells what it has done."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Protocol


class Stage(StrEnum):
    HASHING = "Hashing"
    SENDING = "Sending"
    FETCHING = "Fetching"
    RESTORING = "Waiting for an archive"


class Progress(Protocol):
    """Told by many threads; implementations are thread-safe."""

    def begin(self, stage: Stage, size_bytes: int) -> None:
        """A stage with this much to do begins."""

    def advance(self, size_bytes: int) -> None:
        """So much more is done; negative when it has to be done again."""


class Silent:
    """Tells nobody."""

    def begin(self, stage: Stage, size_bytes: int) -> None:
        """Nobody listens."""

    def advance(self, size_bytes: int) -> None:
        """Nobody listens."""


@contextmanager
def counting(progress: Progress, size_bytes: int) -> Iterator[Callable[[int], None]]:
    """Counts a piece of work as `size_bytes` exactly, however often its parts are told, and as none when it fails."""
    told_bytes = 0

    def advance(more_bytes: int) -> None:
        nonlocal told_bytes
        told_bytes += more_bytes
        progress.advance(more_bytes)

    try:
        yield advance
    except BaseException:
        progress.advance(-told_bytes)
        raise
    progress.advance(size_bytes - told_bytes)
