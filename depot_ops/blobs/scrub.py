"""Scrubbing: reading objects through in every copy of the store, and repairing each copy from the others."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, Field

from depot_api.blobstore.bucket import BucketCopy
from depot_api.blobstore.store import BlobStore
from depot_ops.blobs.inventory import PREFIXES, CopyUnreachable, require_store
from depot_ops.blobs.records import AffectedVersion, BlobRecords, Recorded
from depot_ops.blobs.scrub_copies import MISSING, BucketObjects, CopyName, DiskCopy, ScrubbedCopy, load_bucket_state
from depot_ops.blobs.scrub_state import ScrubState, load_state, write_durably
from depot_ops.evidence import Figures, Finding, Status
from depot_ops.exclusive import exclusively
from depot_ops.places import Place, PlaceError
from depot_ops.tiering.bucket import TieredBucket

EVIDENCE = "evidence"
LOCK_NAME = ".scrub.lock"
NAMED = 1000
# A night that was missed is made up for by the next; more than this over the period is an alarm.
LATE_BY = timedelta(days=2)
Told = Callable[[int, int], None]


class ScrubRunning(Exception):
    """Another scrub of this store is under way."""


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
    archived_objects: int = 0
    """In the bucket, and not to be read without a restore: the archive vouches for them."""
    duration_seconds: float = 0.0
    damaged: list[Damaged] = []
    affected: list[AffectedVersion] = []
    """The versions that need what was found damaged, the first of them; of what was not repaired, if there is any."""
    unread: dict[CopyName, str] = {}
    """The copies that could not be asked, and why."""

    @property
    def unrepaired(self) -> list[Damaged]:
        return [damaged for damaged in self.damaged if not damaged.repaired]

    @property
    def rate_bytes_per_second(self) -> int:
        return round(self.read_bytes / self.duration_seconds) if self.duration_seconds else 0

    @property
    def status(self) -> Status:
        if self.unrepaired:
            return Status.UNHEALTHY
        return Status.UNKNOWN if self.unread else Status.HEALTHY


@dataclass(frozen=True)
class ScrubOptions:
    """What is read through. `settled_seconds`: a younger object may still be on its way to the other copies."""

    period: timedelta = timedelta(days=30)
    repair: bool = False
    workers: int = 4
    settled_seconds: float = 300.0
    bucket_period: timedelta = timedelta(days=365)


class Scrubber:
    """Reads the copies of the store through; made by `open_scrubber`."""

    def __init__(
        self,
        evidence: Path,
        copies: list[ScrubbedCopy],
        unread: dict[CopyName, str],
        records: BlobRecords,
        options: ScrubOptions,
    ) -> None:
        self._evidence = evidence
        self._copies = copies
        self._unread = unread
        self._records = records
        self._options = options

    def scrub_due(self, told: Told = lambda _done, _all: None) -> Scrubbed:
        """Read a day's share of each copy, and what was never read of those on disk, as `scrub`."""
        return self._scrub({copy.name: self._due(copy) for copy in self._copies}, told)

    def scrub(
        self, prefixes: Iterable[str], told: Told = lambda _done, _all: None, only: CopyName | None = None
    ) -> Scrubbed:
        """Read every object of these prefixes in all copies. Killed, it has kept what it knew a moment before."""
        wanted = list(prefixes)
        return self._scrub({copy.name: wanted for copy in self._copies if only in (None, copy.name)}, told)

    def _due(self, copy: ScrubbedCopy) -> list[str]:
        now = datetime.now(UTC)
        if copy.name is CopyName.BUCKET:  # which bills for what is read: no more at once than has to be
            return copy.state.due(self._options.bucket_period, now)
        return copy.state.due(self._options.period, now, catch_up=True)

    def _scrub(self, wanted: Mapping[CopyName, Iterable[str]], told: Told) -> Scrubbed:
        result, started = Scrubbed(unread=dict(self._unread)), time.monotonic()
        turns = {name: set(prefixes) for name, prefixes in wanted.items()}
        prefixes = sorted(set().union(*turns.values()))
        copies = [copy for copy in self._copies if copy.name in turns]
        with ThreadPoolExecutor(self._options.workers) as pool:
            saved = dict.fromkeys(turns, started)
            try:
                for done, prefix in enumerate(prefixes):
                    for copy in [copy for copy in copies if prefix in turns[copy.name]]:
                        if not self._scrub_prefix(copy, prefix, pool, result):
                            copies.remove(copy)
                    told(done + 1, len(prefixes))
                    for copy in copies:
                        if time.monotonic() - saved[copy.name] > copy.save_seconds:
                            self._save(copy, result)
                            saved[copy.name] = time.monotonic()
            finally:
                for copy in copies:
                    self._save(copy, result)
        result.prefixes = len(prefixes)
        result.archived_objects = sum(len(copy.archived) for copy in copies if isinstance(copy, BucketObjects))
        worst = result.unrepaired or result.damaged
        result.affected = self._records.affected([found.sha256 for found in worst[:NAMED]])
        result.duration_seconds = round(time.monotonic() - started, 3)
        result.finished_at = datetime.now(UTC)
        self._keep_evidence(result)
        return result

    def _scrub_prefix(self, copy: ScrubbedCopy, prefix: str, pool: ThreadPoolExecutor, result: Scrubbed) -> bool:
        """Whether the copy could be asked."""
        began = datetime.now(UTC)
        recorded = self._records.of_prefix(prefix)
        if copy.name is not CopyName.STORE:
            settled = began - timedelta(seconds=self._options.settled_seconds)
            recorded = {sha256: known for sha256, known in recorded.items() if known.written_at < settled}
        try:
            suspects = _unlike_their_records(copy, recorded, pool)
            # Sent again or removed for good meanwhile: only what is not like its record of now is damaged.
            seen = _unlike_their_records(copy, now_recorded := self._records.of(list(suspects)), pool)
        except PlaceError as error:
            result.unread[copy.name] = str(error)
            return False
        damaged = [Damaged(copy_name=copy.name, sha256=sha256, seen=what) for sha256, what in seen.items()]
        if self._options.repair:
            for found in damaged:
                found.repaired = copy.repair(now_recorded[found.sha256].blob)
        result.damaged += damaged
        result.objects_read += len(recorded)
        result.read_bytes += sum(known.blob.stored_bytes for known in recorded.values())
        _remember(copy.state, prefix, began, damaged)
        return True

    @staticmethod
    def _save(copy: ScrubbedCopy, result: Scrubbed) -> None:
        try:
            copy.save()
        except PlaceError as error:
            result.unread[copy.name] = f"what was found there could not be kept: {error}"

    def _keep_evidence(self, result: Scrubbed) -> None:
        self._evidence.mkdir(exist_ok=True)
        write_durably(self._evidence / f"scrub-{result.started_at:%Y%m%dT%H%M%S%fZ}.json", result)


def _remember(state: ScrubState, prefix: str, began: datetime, damaged: list[Damaged]) -> None:
    state.verified_at[prefix] = began
    for sha256 in [sha256 for sha256 in state.damaged if sha256.startswith(prefix)]:
        del state.damaged[sha256]
    state.damaged |= {found.sha256: found.seen for found in damaged if not found.repaired}


def _unlike_their_records(
    copy: ScrubbedCopy, recorded: dict[str, Recorded], pool: ThreadPoolExecutor
) -> dict[str, str]:
    """hash → what was seen, of those objects that are not what their record says."""
    seen = pool.map(lambda known: _difference(copy, known), recorded.values())
    return {sha256: what for sha256, what in zip(recorded, seen, strict=True) if what is not None}


def _difference(copy: ScrubbedCopy, recorded: Recorded) -> str | None:
    seen = copy.difference(recorded.blob)
    is_away = seen == MISSING and recorded.is_evicted and copy.name is CopyName.STORE
    return None if is_away else seen


@contextmanager
def open_scrubber(
    store: Path,
    mirror: Path | None,
    records: BlobRecords,
    options: ScrubOptions,
    bucket: BucketCopy | None = None,
    open_objects: Callable[[], TieredBucket] | None = None,
) -> Iterator[Scrubber]:
    """What no disk has whole is repaired from `bucket`; with `open_objects` the bucket is read through itself.

    Raises CopyUnreachable, and ScrubRunning: of two at once, the later would forget what the other found damaged. A
    bucket that does not answer is told of in what the scrub comes to.
    """
    roots = {CopyName.STORE: store} | ({CopyName.MIRROR: mirror} if mirror else {})
    layouts = {name: require_store(root) for name, root in roots.items()}
    primary, unread = layouts[CopyName.STORE], dict[CopyName, str]()
    refusal = ScrubRunning(f"Another scrub of {store} is under way. Leave it to that one, and run this again after it.")
    with ExitStack() as stack:
        stack.enter_context(exclusively(store / LOCK_NAME, refusal))
        copies: list[ScrubbedCopy] = []
        for name, layout in layouts.items():
            staging = stack.enter_context(closing(BlobStore(layout.root)))
            staging.prepare()
            others = [other for other in layouts.values() if other is not layout]
            state = load_state(layout.root) or ScrubState()
            copies.append(DiskCopy(name, layout, others, bucket, primary, staging, state))
        if open_objects is not None:
            try:
                place = open_objects()
                state = load_bucket_state(place) or ScrubState()
                copies.append(BucketObjects(place, list(layouts.values()), primary, state))
            except PlaceError as error:
                unread[CopyName.BUCKET] = str(error)
        yield Scrubber(store / EVIDENCE, copies, unread, records, options)


def shard_of(number: int, total: int) -> list[str]:
    """The prefixes of shard `number` (from 1) of `total`; all shards together are everything."""
    return PREFIXES[number - 1 :: total]


# Checks ---------------------------------------------------------------------------------------------------------------


def check_scrubbed(store: Path, mirror: Path | None, period: timedelta) -> Finding:
    """Was every object of the store and its mirror read through within the period, and is none known to be damaged?"""
    roots = {CopyName.STORE: store} | ({CopyName.MIRROR: mirror} if mirror else {})
    try:
        states = {name: load_state(require_store(root).root) for name, root in roots.items()}
    except (CopyUnreachable, OSError) as error:
        return Finding(check="scrub_age", status=Status.UNKNOWN, detail=str(error))
    return judge("scrub_age", states, period, "depot-ops blobs scrub --all --repair")


def judge(check: str, states: Mapping[CopyName, ScrubState | None], period: timedelta, remedy: str) -> Finding:
    """What the scrubs of these copies came to: unknown until all was read through once, or is late for it."""
    now, late = datetime.now(UTC), period + LATE_BY
    known = [state for state in states.values() if state is not None]
    damaged = sum(len(state.damaged) for state in known)
    never = {name: len(state.never_verified) if state else len(PREFIXES) for name, state in states.items()}
    figures: Figures = {"damaged_objects": damaged, "never_verified_prefixes": sum(never.values())}
    details = [f"{n} of {len(PREFIXES)} parts of the {name} were never read through" for name, n in never.items() if n]
    overdue = any(state.never_verified and now - state.since > late for state in known)
    if verified := [state.oldest_verified for state in known if state.oldest_verified is not None]:
        age = now - min(verified)
        overdue = overdue or age > late
        figures["oldest_verification_seconds"] = round(age.total_seconds())
        details.append(f"the oldest verification is {age.total_seconds() / 86_400:.1f} days old")
    details.append(f"{damaged:,} objects are damaged")
    status = Status.UNKNOWN if any(never.values()) else Status.HEALTHY
    if damaged or overdue:
        status = Status.UNHEALTHY
    advice = "" if status is Status.HEALTHY else f". `{remedy}` reads everything now"
    return Finding(check=check, status=status, detail="; ".join(details) + advice, figures=figures)


def check_bucket_scrubbed(open_place: Callable[[], Place], period: timedelta) -> Finding:
    """Was every object in the bucket read through within the period, and is none known to be damaged?"""
    name = "object_storage_verified"
    try:
        state = load_bucket_state(open_place())
    except PlaceError as error:
        return Finding(check=name, status=Status.UNKNOWN, detail=str(error))
    return judge(name, {CopyName.BUCKET: state}, period, "depot-ops blobs verify-bucket")
