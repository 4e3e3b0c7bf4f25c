"""The table that a run prints."""

import statistics
import time
from collections.abc import Callable

from rich.table import Table


class Results:
    """Rows of the table, in the order they were measured."""

    def __init__(self) -> None:
        self.table = Table("what", "measured", "baseline", "ratio", "target")

    def add(self, what: str, measured: str, target: str, baseline: str = "", ratio: float | None = None) -> None:
        self.table.add_row(what, measured, baseline, f"{ratio:.2f}" if ratio is not None else "", target)

    def add_paired(self, what: str, seconds: list[float], baseline_seconds: list[float], target: str) -> None:
        ratio = statistics.median(a / b for a, b in zip(seconds, baseline_seconds, strict=True))
        measured, baseline = statistics.median(seconds), statistics.median(baseline_seconds)
        self.add(what, f"{measured:.2f} s", target, f"cp -r; sync {baseline:.2f} s", ratio)


def timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started
