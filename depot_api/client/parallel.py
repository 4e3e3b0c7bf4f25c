"""Doing independent tasks in threads, and stopping them all when one fails or the user interrupts."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from threading import Event
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_groups(
    items: Iterable[Item], size_of: Callable[[Item], int], max_bytes: int, max_items: int
) -> Iterator[list[Item]]:
    """Consecutive items, at most so many bytes and so many items together; a larger item is alone."""
    group: list[Item] = []
    group_bytes = 0
    for item in items:
        size_bytes = size_of(item)
        if group and (group_bytes + size_bytes > max_bytes or len(group) == max_items):
            yield group
            group, group_bytes = [], 0
        group.append(item)
        group_bytes += size_bytes
    if group:
        yield group


def run_all(tasks: Iterable[Callable[[], Result]], workers: int, stop: Event) -> Iterator[Result]:
    """Results in the order in which they are ready.

    When a task raises, or the reader of the results stops, `stop` is set, waiting tasks are dropped
    and running ones are waited for: they look at `stop` between pieces.
    """
    with ThreadPoolExecutor(workers, thread_name_prefix="depot") as pool:
        futures = [pool.submit(task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
