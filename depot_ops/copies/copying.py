"""One pass of copying: what the place has not is put there, each file proved here and compared on its arrival.

Nothing is ever overwritten. A pass that was killed leaves files without a record, which are no backup; the next one
goes on behind the last file that arrived.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

from depot_ops.copies.holdings import listing
from depot_ops.copies.units import Unit, UnitDamaged, UnitKind, hash_of, units
from depot_ops.durable import write_private
from depot_ops.evidence import Status
from depot_ops.exclusive import exclusively
from depot_ops.places import Place, PlaceConflict, PlaceDamaged, PlaceError, PlaceMissing
from depot_ops.postgres.wal.archive import ArchiveDamaged, ArchiveError

WORKERS = 4
EVIDENCE_NAME = "copied.json"
LOCK_NAME = ".copy.lock"


class CopyError(Exception):
    """The pass ended early; what has arrived stays, and the next pass goes on. The message says why."""


class CopyRunning(CopyError):
    """Another pass, or pruning of the place, is running."""


class Refusal(BaseModel):
    """What was not copied, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    reason: str


class Copied(BaseModel):
    """What a pass came to. It is complete when nothing was refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    place: str
    started_at: AwareDatetime
    finished_at: AwareDatetime
    units: dict[UnitKind, int]
    """Everything that is to be there, by kind."""
    copied: tuple[str, ...]
    copied_bytes: int
    refused: tuple[Refusal, ...]

    @property
    def status(self) -> Status:
        return Status.UNHEALTHY if self.refused else Status.HEALTHY


def copy_backups(
    backup_dir: Path, archive_root: Path | None, place: Place, *, say: Callable[[str], None] = lambda _: None
) -> Copied:
    """Copy what is proved here and not there yet. Raises CopyError; may be killed, and run again."""
    started_at = datetime.now(UTC)
    try:
        with sole_copier(backup_dir):
            place.remove_debris()
            held = listing(place)
            known = list(units(backup_dir, archive_root))
            outcomes = list(_copy_all(known, held, place, say))
            copied = Copied(
                place=str(place),
                started_at=started_at,
                finished_at=datetime.now(UTC),
                units=dict(Counter(unit.kind for unit in known)),
                copied=tuple(outcome.unit.name for outcome in outcomes if outcome.copied_bytes),
                copied_bytes=sum(outcome.copied_bytes for outcome in outcomes),
                refused=tuple(Refusal(name=o.unit.name, reason=o.refusal) for o in outcomes if o.refusal),
            )
            if not copied.refused:
                # The last complete pass, by which the copy's age is judged.
                write_private(backup_dir / EVIDENCE_NAME, copied.model_dump_json(indent=2))
    except (PlaceError, ArchiveError, OSError) as error:
        raise CopyError(f"not all was copied to {place}: {error}. The next pass goes on") from error
    return copied


@dataclass(frozen=True, slots=True)
class _Outcome:
    unit: Unit
    copied_bytes: int = 0
    refusal: str = ""


def _copy_all(known: list[Unit], held: dict[str, int], place: Place, say: Callable[[str], None]) -> Iterator[_Outcome]:
    # The log first: it is what is lost while a large backup is on its way.
    with ThreadPoolExecutor(WORKERS) as pool:
        small = [unit for unit in known if unit.kind is not UnitKind.BASE]
        for outcome in pool.map(lambda unit: _copy(unit, held, place), small):
            yield _told(outcome, say)
    arrived = set(held)
    for unit in known:
        if unit.kind is not UnitKind.BASE:
            continue
        if unit.parent is not None and unit.parent not in arrived:
            yield _told(_Outcome(unit, refusal=f"what it builds on is not there: {unit.parent}"), say)
            continue
        outcome = _copy(unit, held, place)
        arrived |= {unit.record_key} if not outcome.refusal else set()
        yield _told(outcome, say)


def _copy(unit: Unit, held: Mapping[str, int], place: Place) -> _Outcome:
    copied_bytes = 0
    try:
        missing = unit.missing(held)
        if missing:
            unit.prove()
        for file in missing:
            place.put(file.key, file.path, hash_of(file))
            copied_bytes += file.size_bytes
    except (PlaceConflict, PlaceDamaged, ArchiveDamaged, UnitDamaged) as error:
        return _Outcome(unit, copied_bytes, str(error))
    except (FileNotFoundError, PlaceMissing) as error:
        # Retention deletes here while we copy: the record is gone then too.
        return _Outcome(unit, copied_bytes, str(error) if unit.files[-1].path.exists() else "")
    return _Outcome(unit, copied_bytes)


def _told(outcome: _Outcome, say: Callable[[str], None]) -> _Outcome:
    if outcome.refusal:
        say(f"refused {outcome.unit.kind} {outcome.unit.name}: {outcome.refusal}")
    elif outcome.copied_bytes:
        say(f"copied {outcome.unit.kind} {outcome.unit.name}: {outcome.copied_bytes:,} bytes")
    return outcome


@contextmanager
def sole_copier(backup_dir: Path) -> Iterator[None]:
    """Hold the place against every other copier and deleter of this backup directory. Raises CopyRunning."""
    refusal = CopyRunning(f"another copy of {backup_dir} is running, or its place is being pruned: wait")
    with exclusively(backup_dir / LOCK_NAME, refusal):
        yield
