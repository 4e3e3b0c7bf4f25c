"""Explicit transitions: every object is moved to where the policy wants it, down or up again.

Nothing is kept of what was done: where an object lies is what the bucket says. A run that was killed is run again.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from typing import Literal

from pydantic import AwareDatetime, BaseModel, Field

from depot_ops.places import PlaceError
from depot_ops.tiering.bucket import Listed, ObjectArchived, ObjectGone, RestoreState, TieredBucket
from depot_ops.tiering.classes import StorageClass
from depot_ops.tiering.plan import Placement, Plan

DEFAULT_WORKERS = 8
# So many objects that cannot be moved are not chance: the bucket is away, or refuses us.
MOST_FAILURES = 50


class Outcome(StrEnum):
    """What became of one object."""

    MOVED = "moved"
    RESTORE_REQUESTED = "restore_requested"
    RESTORING = "restoring"
    GONE = "gone"


class Tiered(BaseModel):
    """The evidence of one run."""

    schema_version: Literal[1] = 1
    started_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    bucket: str
    duration_seconds: float = 0.0
    moved_objects: int = 0
    moved_bytes: int = 0
    moved_up_objects: int = 0
    restore_requested_objects: int = 0
    """They lie in an archive; hours later a run takes them up."""
    restoring_objects: int = 0
    """Asked for by an earlier run, and still on their way."""
    gone_objects: int = 0
    failed: list[str] = []
    """Which, and why."""
    stopped: bool = False
    """After MOST_FAILURES failures: what came behind them was not looked at."""
    plan: Plan | None = None
    """Before and after by the policy, whatever failed. None when the run was stopped."""


def apply_moves(
    bucket: TieredBucket, placements: Iterable[Placement], restore_days: int, workers: int = DEFAULT_WORKERS
) -> Tiered:
    """Move what is not where it is wanted, until all is or MOST_FAILURES failed."""
    started, result = time.monotonic(), Tiered(bucket=str(bucket))
    with ThreadPoolExecutor(workers) as pool:
        for listed, into, tried in _tried(pool, workers, partial(_move, bucket, restore_days), placements):
            _count(result, listed, into, tried)
            if len(result.failed) >= MOST_FAILURES:
                result.stopped = True
                break
    result.duration_seconds = round(time.monotonic() - started, 3)
    return result


def _tried(
    pool: ThreadPoolExecutor,
    workers: int,
    move: Callable[[Listed, StorageClass], Outcome | PlaceError],
    placements: Iterable[Placement],
) -> Iterator[tuple[Listed, StorageClass, Outcome | PlaceError]]:
    """All that has a target, a few ahead of what is yielded."""
    waiting: deque[tuple[Listed, StorageClass, Future[Outcome | PlaceError]]] = deque()
    for placement in placements:
        if placement.target is None:
            continue
        waiting.append((placement.listed, placement.target, pool.submit(move, placement.listed, placement.target)))
        if len(waiting) > 2 * workers:
            listed, into, future = waiting.popleft()
            yield listed, into, future.result()
    for listed, into, future in waiting:
        yield listed, into, future.result()


def _move(bucket: TieredBucket, restore_days: int, listed: Listed, into: StorageClass) -> Outcome | PlaceError:
    """One that fails is returned: it is told, and the others go on."""
    try:
        if StorageClass(listed.storage_class).is_archive:
            match bucket.restore_state(listed.key):
                case RestoreState.RESTORING:
                    return Outcome.RESTORING
                case RestoreState.ARCHIVED:
                    bucket.request_restore(listed, restore_days)
                    return Outcome.RESTORE_REQUESTED
        bucket.move(listed, into)
    except ObjectGone:
        return Outcome.GONE
    except ObjectArchived:  # by INTELLIGENT_TIERING, which the listing does not show
        return _restore(bucket, listed, restore_days)
    except PlaceError as error:
        return error
    return Outcome.MOVED


def _restore(bucket: TieredBucket, listed: Listed, restore_days: int) -> Outcome | PlaceError:
    try:
        bucket.request_restore(listed, restore_days)
    except PlaceError as error:
        return error
    return Outcome.RESTORE_REQUESTED


def _count(result: Tiered, listed: Listed, into: StorageClass, tried: Outcome | PlaceError) -> None:
    match tried:
        case Outcome.MOVED:
            result.moved_objects += 1
            result.moved_bytes += listed.size_bytes
            result.moved_up_objects += into.coldness < StorageClass(listed.storage_class).coldness
        case Outcome.RESTORE_REQUESTED:
            result.restore_requested_objects += 1
        case Outcome.RESTORING:
            result.restoring_objects += 1
        case Outcome.GONE:
            result.gone_objects += 1
        case PlaceError():
            result.failed.append(f"{listed.sha256}: {tried}")
