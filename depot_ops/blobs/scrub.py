"""Scrubbing: reading objects through in the store and its mirror, and repairing each copy from the other."""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, Field

from depot_api.blobstore.copies import commit_copies, stage_copy
from depot_api.blobstore.errors import BlobDamaged, BlobError, BlobMissing
from depot_api.blobstore.examine import examine
from depot_api.blobstore.layout import Layout
from depot_api.blobstore.store import BlobStore
from depot_ops.blobs.inventory import PREFIXES, CopyUnreachable, require_store
from depot_ops.blobs.records import BlobRecords, Recorded
from depot_ops.blobs.scrub_state import ScrubState, load_state, save_state, write_durably
from depot_ops.evidence import Figures, Finding, Status

EVIDENCE = "evidence"
SAVE_SECONDS = 2.0
MISSING = "it is missing"
# A night that was missed is made up for by the next; more than this over the period is an alarm.
LATE_BY = timedelta(days=2)


class CopyName(StrEnum):
    """Which copy of an object."""

    STORE = "store"
    MIRROR = "mirror"


class Damaged(BaseModel):
    """An object that was not what its record says, in one copy, and what became of it."""

    copy_name: CopyName
    sha256: str
    seen: str
    repaired: bool = False


class Scrubbed(BaseModel):
    """The evidence of one scrub."""

    schema_version: Literal[1] = 1
    started_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    finished_at: AwareDatetime | None = None
    prefixes: int = 0
    objects_read: int = 0
    read_bytes: int = 0
    duration_seconds: float = 0.0
    damaged: list[Damaged] = []

    @property
    def unrepaired(self) -> list[Damaged]:
        return [damaged for damaged in self.damaged if not damaged.repaired]

    @property
    def rate_bytes_per_second(self) -> int:
        return round(self.read_bytes / self.duration_seconds) if self.duration_seconds else 0


@dataclass(frozen=True)
class ScrubOptions:
    """What is read through. `settled_seconds`: a younger object may still be on its way to the mirror."""

    period: timedelta = timedelta(days=30)
    repair: bool = False
    workers: int = 4
    settled_seconds: float = 300.0


@dataclass(frozen=True)
class _Copy:
    name: CopyName
    layout: Layout
    other: Layout
    staging: BlobStore
    state: ScrubState


class Scrubber:
    """Reads the copies of the store through; made by `open_scrubber`."""

    def __init__(self, copies: list[_Copy], records: BlobRecords, options: ScrubOptions) -> None:
        self._copies = copies
        self._records = records
        self._options = options

    def due(self) -> list[str]:
        """The prefixes whose turn it is in any copy."""
        now = datetime.now(UTC)
        wanted = {prefix for copy in self._copies for prefix in copy.state.due(self._options.period, now)}
        return sorted(wanted)

    def scrub(self, prefixes: Iterable[str], told: Callable[[int, int], None] = lambda _done, _all: None) -> Scrubbed:
        """Read every object of these prefixes in both copies. Killed, it has kept what it knew a moment before."""
        result, prefixes = Scrubbed(), list(prefixes)
        started = saved = time.monotonic()
        try:
            with ThreadPoolExecutor(self._options.workers) as pool:
                for done, prefix in enumerate(prefixes):
                    for copy in self._copies:
                        self._scrub_prefix(copy, prefix, pool, result)
                    told(done + 1, len(prefixes))
                    if time.monotonic() - saved > SAVE_SECONDS:
                        self._save_states()
                        saved = time.monotonic()
        finally:
            self._save_states()
        result.prefixes = len(prefixes)
        result.duration_seconds = round(time.monotonic() - started, 3)
        result.finished_at = datetime.now(UTC)
        self._keep_evidence(result)
        return result

    def _scrub_prefix(self, copy: _Copy, prefix: str, pool: ThreadPoolExecutor, result: Scrubbed) -> None:
        began = datetime.now(UTC)
        recorded = self._records.of_prefix(prefix)
        if copy.name is CopyName.MIRROR:
            settled = began - timedelta(seconds=self._options.settled_seconds)
            recorded = {sha256: known for sha256, known in recorded.items() if known.written_at < settled}
        suspects = _unlike_their_records(copy, recorded, pool)
        # Sent again or removed for good meanwhile: only what is not like its record of now is damaged.
        seen = _unlike_their_records(copy, now_recorded := self._records.of(list(suspects)), pool)
        damaged = [Damaged(copy_name=copy.name, sha256=sha256, seen=what) for sha256, what in seen.items()]
        if self._options.repair:
            for found in damaged:
                found.repaired = _repair(copy, now_recorded[found.sha256])
        result.damaged += damaged
        result.objects_read += len(recorded)
        result.read_bytes += sum(known.blob.stored_bytes for known in recorded.values())
        self._remember(copy, prefix, began, damaged)

    @staticmethod
    def _remember(copy: _Copy, prefix: str, began: datetime, damaged: list[Damaged]) -> None:
        state = copy.state
        state.verified_at[prefix] = began
        for sha256 in [sha256 for sha256 in state.damaged if sha256.startswith(prefix)]:
            del state.damaged[sha256]
        state.damaged |= {found.sha256: found.seen for found in damaged if not found.repaired}

    def _save_states(self) -> None:
        for copy in self._copies:
            save_state(copy.layout.root, copy.state)

    def _keep_evidence(self, result: Scrubbed) -> None:
        directory = self._copies[0].layout.root / EVIDENCE
        directory.mkdir(exist_ok=True)
        write_durably(directory / f"scrub-{result.started_at:%Y%m%dT%H%M%S%fZ}.json", result)


def _unlike_their_records(copy: _Copy, recorded: dict[str, Recorded], pool: ThreadPoolExecutor) -> dict[str, str]:
    """hash → what was seen, of those objects that are not what their record says."""
    seen = pool.map(lambda known: _difference(copy, known), recorded.values())
    return {sha256: what for sha256, what in zip(recorded, seen, strict=True) if what is not None}


def _difference(copy: _Copy, recorded: Recorded) -> str | None:
    try:
        found = examine(copy.layout, recorded.blob.sha256)
    except BlobMissing:
        return None if recorded.is_evicted and copy.name is CopyName.STORE else MISSING
    except BlobDamaged as error:
        return error.seen
    except OSError as error:  # what a dying disk says
        return f"it cannot be read: {error}"
    return None if found == recorded.blob else "its content is right, its stored form is not the recorded one"


def _repair(copy: _Copy, recorded: Recorded) -> bool:
    """Whether the other copy had it right. What lay there is kept in quarantine."""
    blob = recorded.blob
    try:
        staged = stage_copy(copy.other, blob.sha256, copy.staging.temporary_file())
        if (staged.stored_bytes, staged.stored_crc32) != (blob.stored_bytes, blob.stored_crc32):
            copy.staging.discard([staged])
            return False
        primary = copy.layout if copy.name is CopyName.STORE else copy.other
        return bool(commit_copies([staged], copy.other, copy.layout, primary, quarantine=True))
    except (BlobError, OSError):
        return False  # the other copy is no better, or there is no room: it stays on the list of what is damaged


@contextmanager
def open_scrubber(store: Path, mirror: Path, records: BlobRecords, options: ScrubOptions) -> Iterator[Scrubber]:
    """Raises CopyUnreachable."""
    layouts = {CopyName.STORE: require_store(store), CopyName.MIRROR: require_store(mirror)}
    with ExitStack() as stack:
        copies = []
        for name, other in ((CopyName.STORE, CopyName.MIRROR), (CopyName.MIRROR, CopyName.STORE)):
            staging = stack.enter_context(closing(BlobStore(layouts[name].root)))
            staging.prepare()
            state = load_state(layouts[name].root) or ScrubState()
            copies.append(_Copy(name, layouts[name], layouts[other], staging, state))
        yield Scrubber(copies, records, options)


def shard_of(number: int, total: int) -> list[str]:
    """The prefixes of shard `number` (from 1) of `total`; all shards together are everything."""
    return PREFIXES[number - 1 :: total]


def check_scrubbed(store: Path, mirror: Path, period: timedelta) -> Finding:
    """Was every object of both copies read through within the period, and is none known to be damaged?"""
    name, now = "scrub_age", datetime.now(UTC)
    try:
        states = {copy: load_state(require_store(root).root) for copy, root in (("store", store), ("mirror", mirror))}
    except (CopyUnreachable, OSError) as error:
        return Finding(check=name, status=Status.UNKNOWN, detail=str(error))
    if never := [copy for copy, state in states.items() if state is None]:
        detail = f"The {' and the '.join(never)} never scrubbed. Run `depot-ops blobs scrub --all --repair`."
        return Finding(check=name, status=Status.UNKNOWN, detail=detail)
    known = [state for state in states.values() if state is not None]
    oldest_seconds = round((now - min(state.oldest for state in known)).total_seconds())
    damaged = sum(len(state.damaged) for state in known)
    figures: Figures = {"oldest_verification_seconds": oldest_seconds, "damaged_objects": damaged}
    detail = f"The oldest verification is {oldest_seconds / 86_400:.1f} days old; {damaged:,} objects are damaged."
    bad = damaged > 0 or oldest_seconds > (period + LATE_BY).total_seconds()
    return Finding(check=name, status=Status.UNHEALTHY if bad else Status.HEALTHY, detail=detail, figures=figures)
