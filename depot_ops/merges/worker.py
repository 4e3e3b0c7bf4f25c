"""A worker: an executor that looks for merge jobs again and again, for a studio that wants many of them."""

from collections.abc import Callable, Iterator
from threading import Event
from uuid import UUID

from depot_api.client import DepotError, ProblemError
from depot_ops.merges.executor import Executor, JobReport

POLL_SECONDS = 0.25  # a merge is three jobs and has to be through within a second; an idle look is two small queries
LONGEST_PAUSE_SECONDS = 10.0  # between looks while the depot does not answer
FIRST_SERVER_ERROR = 500


def keep_working(
    executor: Executor, stop: Event, complain: Callable[[str], None], *, merge_id: UUID | None = None
) -> Iterator[JobReport]:
    """Carry jobs out until `stop` is set. Waits while the depot cannot be reached; raises what it refuses."""
    pause_seconds = POLL_SECONDS
    while not stop.is_set():
        try:
            yield from executor.work(merge_id=merge_id)
            pause_seconds = POLL_SECONDS
        except DepotError as error:
            if isinstance(error, ProblemError) and error.status < FIRST_SERVER_ERROR:
                raise
            complain(str(error))
            pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)
        stop.wait(pause_seconds)
