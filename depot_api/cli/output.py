"""What the command says: results on stdout, everything else on stderr, one JSON document with --json."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bars

from depot_api.client.problems import (
    SERVER_SIDE_STATUSES,
    DepotError,
    OutcomeUnknown,
    ProblemError,
    UnexpectedAnswer,
    Unreachable,
)
from depot_api.client.progress import Progress, Silent, Stage

JSON_FLAG = "--json"
LISTED = 20  # lines of a long list; the rest is counted
AsJson = Annotated[bool, typer.Option(JSON_FLAG, help="Print one JSON document.")]
KIB = 1024

ADVICE = {
    "unauthenticated": "Sign in with `depot login URL`, or set DEPOT_URL and DEPOT_TOKEN.",
    "stale-base": "Others changed these paths since you got them. Nothing was submitted. "
    "Run `depot sync` on the directory, settle the conflicts that it lists, and submit again.",
    "locked": "Others hold these locks. Nothing was changed in the depot. Ask them, or go on without these paths.",
    "stale-lock-base": "Nothing was locked. Run `depot sync`, or integrate from the branch that is named, then lock.",
    "lock-required": "Nothing was submitted. Run `depot lock` on these paths, then submit again.",
    "lock-lost": "Run `depot sync`, settle what changed meanwhile, and `depot lock` these paths again.",
    "storage-full": "The depot has no space left. Nothing was submitted. Tell whoever runs it, then run this again: "
    "what arrived is not sent again.",
    "quota-exceeded": "The project's storage quota has no room for this. Nothing was submitted. Ask a manager of the "
    "project to raise it, then run this again: what arrived is not sent again.",
    "review-required": "Nothing was submitted. `depot submit --review` makes a changelist of it and asks for a review; "
    "approved, it is submitted with `depot submit --changelist ID`.",
    "stale-precondition": "Somebody changed it after you looked. `depot describe` shows it as it is now.",
    "missing-content": "The depot lost content that it had. Nothing was submitted. Tell whoever runs it.",
}


class ExitCode(IntEnum):
    OK = 0
    PROBLEM = 1  # the depot refused, or there are differences
    USAGE = 2
    UNKNOWN = 3  # the depot could not be reached, or its answer says nothing
    INTERRUPTED = 130


def show(as_json: bool, document: object, lines: Iterable[str]) -> None:
    """Print a result: the document, or the lines for people."""
    if as_json:
        print(json.dumps(document, indent=2, default=_plain))
        return
    for line in lines:
        print(line)


def note(text: str) -> None:
    """Tell the user something that is not the result."""
    print(text, file=sys.stderr)


def shortened(lines: Sequence[str]) -> list[str]:
    """At most LISTED lines, and how many more there are."""
    more = len(lines) - LISTED
    return [*lines[:LISTED], f"  … and {more} more"] if more > 0 else list(lines)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows in columns as wide as their widest cell."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (header, *rows)
    ]


def human_bytes(size_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < KIB:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= KIB
    return f"{size_bytes:.1f} TiB"


def counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Bars with rate and time left on a terminal; elsewhere only that something takes hours."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _PlainProgress()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        yield _TerminalProgress(bars)


class _PlainProgress(Silent):
    def __init__(self) -> None:
        self._has_told = False

    def begin(self, stage: Stage, size_bytes: int) -> None:
        if stage is Stage.RESTORING and not self._has_told:
            note(f"{size_bytes:,} bytes are being restored from an archive, which takes hours. Waiting for them.")
            self._has_told = True


class _TerminalProgress:
    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._task = bars.add_task("Looking", total=None)

    def begin(self, stage: Stage, size_bytes: int) -> None:
        self._bars.reset(self._task, description=stage.value, total=size_bytes)

    def advance(self, size_bytes: int) -> None:
        self._bars.advance(self._task, size_bytes)


def report(error: DepotError, as_json: bool) -> ExitCode:
    """Tell an error, and say what the process should exit with."""
    if as_json:
        print(json.dumps({"error": _error_document(error)}, indent=2, default=str))
    for line in _error_lines(error):
        note(line)
    is_problem = isinstance(error, ProblemError) and error.status not in SERVER_SIDE_STATUSES
    is_unknown = isinstance(error, Unreachable | OutcomeUnknown | UnexpectedAnswer | ProblemError)
    return ExitCode.UNKNOWN if is_unknown and not is_problem else ExitCode.PROBLEM


def _error_document(error: DepotError) -> dict[str, Any]:
    if not isinstance(error, ProblemError):
        return {"kind": type(error).__name__, "detail": str(error)}
    known = {
        "kind": "ProblemError",
        "status": error.status,
        "type": error.type,
        "title": error.title,
        "detail": error.detail,
        "errors": error.errors,
        "request_id": error.request_id,
    }
    return error.extra | known


def _error_lines(error: DepotError) -> Iterator[str]:
    yield f"Error: {error}"
    if not isinstance(error, ProblemError):
        return
    yield from shortened([f"  {one.get('pointer', '')} {one.get('detail', '')}" for one in error.errors])
    stale = error.extra.get("stale", [])
    yield from shortened([_stale_line(one) for one in stale])
    if advice := ADVICE.get(error.slug):
        yield advice
    if error.status in SERVER_SIDE_STATUSES:
        yield f"The depot failed (status {error.status}, request {error.request_id}). Try again in a moment."


def _stale_line(stale: dict[str, Any]) -> str:
    base, head = stale.get("base_version"), stale.get("head_version")
    started = "you add it" if base is None else f"you have version {base}"
    now = "it is deleted in the depot" if head is None else f"the depot has version {head}"
    return f"  {stale.get('path')}: {started}, {now} (changelist {stale.get('head_changelist_no')})"


def _plain(value: object) -> object:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else str(value)
