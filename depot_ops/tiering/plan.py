"""Where everything in the bucket lies, where the policy wants it, and what either costs.

Catalogue and listing come in the order of hashes and are merged as they come: memory does not grow with either.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pydantic import AwareDatetime, BaseModel, Field

from depot_ops.tiering.bucket import Listed
from depot_ops.tiering.catalogue import Judged
from depot_ops.tiering.classes import SMALLEST_MOVED_BYTES, StorageClass
from depot_ops.tiering.prices import PriceTable


@dataclass(frozen=True, slots=True)
class Placement:
    """An object of the bucket, and the class that it goes to; None when it stays."""

    listed: Listed
    target: StorageClass | None


class ClassLine(BaseModel):
    """One storage class, before and after the plan."""

    storage_class: str
    objects_before: int
    bytes_before: int
    cost_before: float | None
    objects_after: int
    bytes_after: int
    cost_after: float | None


class MoveLine(BaseModel):
    """What goes from one class to another."""

    before: str
    after: StorageClass
    objects: int
    size_bytes: int
    cost: float
    """Of the requests, once. Restoring from an archive, and leaving a class before its time, is charged besides."""


class Plan(BaseModel):
    """The dry run."""

    schema_version: Literal[1] = 1
    made_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    currency: str
    price_note: str
    classes: list[ClassLine]
    moves: list[MoveLine]
    cost_before: float
    """A month."""
    cost_after: float
    """A month."""
    moves_cost: float
    """Once."""
    objects_not_in_bucket: int
    objects_not_in_catalogue: int
    objects_in_other_classes: int
    """In classes that the depot does not use: they stay there, and have no price here."""


class Tally:
    """Counts of a plan."""

    def __init__(self) -> None:
        self.not_in_bucket = 0
        self.not_in_catalogue = 0
        self._objects: Counter[tuple[str, str]] = Counter()
        self._bytes: Counter[tuple[str, str]] = Counter()

    def place(self, catalogue: Iterable[Judged], listing: Iterable[Listed]) -> Iterator[Placement]:
        """Merge the two, and count what is yielded."""
        for judged, listed in merged(catalogue, listing):
            if listed is None:
                self.not_in_bucket += 1
                continue
            if judged is None:
                self.not_in_catalogue += 1
            target = target_of(judged, listed)
            pair = (listed.storage_class, target or listed.storage_class)
            self._objects[pair] += 1
            self._bytes[pair] += listed.size_bytes
            yield Placement(listed, target)

    def plan(self, prices: PriceTable) -> Plan:
        lines = [self._line(name, prices) for name in self._classes()]
        moves = [
            MoveLine(
                before=before,
                after=(into := StorageClass(after)),
                objects=objects,
                size_bytes=self._bytes[before, after],
                cost=prices.moves(into, objects),
            )
            for (before, after), objects in sorted(self._objects.items())
            if before != after
        ]
        return Plan(
            currency=prices.currency,
            price_note=prices.note,
            classes=lines,
            moves=moves,
            cost_before=round(sum(line.cost_before or 0 for line in lines), 2),
            cost_after=round(sum(line.cost_after or 0 for line in lines), 2),
            moves_cost=round(sum(move.cost for move in moves), 2),
            objects_not_in_bucket=self.not_in_bucket,
            objects_not_in_catalogue=self.not_in_catalogue,
            objects_in_other_classes=sum(line.objects_before for line in lines if line.cost_before is None),
        )

    def _classes(self) -> list[str]:
        others = {name for pair in self._objects for name in pair} - {str(name) for name in StorageClass}
        return [*(str(name) for name in StorageClass), *sorted(others)]

    def _line(self, name: str, prices: PriceTable) -> ClassLine:
        (objects_before, bytes_before), (objects_after, bytes_after) = self._sums(0, name), self._sums(1, name)
        is_known = name in _KNOWN
        return ClassLine(
            storage_class=name,
            objects_before=objects_before,
            bytes_before=bytes_before,
            cost_before=prices.monthly(StorageClass(name), objects_before, bytes_before) if is_known else None,
            objects_after=objects_after,
            bytes_after=bytes_after,
            cost_after=prices.monthly(StorageClass(name), objects_after, bytes_after) if is_known else None,
        )

    def _sums(self, side: int, name: str) -> tuple[int, int]:
        """Objects and bytes in a class, before (0) or after (1)."""
        pairs = [pair for pair in self._objects if pair[side] == name]
        return sum(self._objects[pair] for pair in pairs), sum(self._bytes[pair] for pair in pairs)


_KNOWN = frozenset(str(name) for name in StorageClass)


def target_of(judged: Judged | None, listed: Listed) -> StorageClass | None:
    """The class that the object is to be moved to. None when it stays where it is:

    - content that the catalogue does not know, or that nothing refers to, is the collector's affair;
    - small objects cost more elsewhere than they save;
    - a class that the depot does not use was chosen by somebody else;
    - what is archived is not restored, and paid for, only to be archived colder.
    """
    if judged is None or judged.verdict is None or listed.size_bytes < SMALLEST_MOVED_BYTES:
        return None
    if listed.storage_class not in _KNOWN:
        return None
    now, wanted = StorageClass(listed.storage_class), judged.verdict.storage_class
    if wanted is now or (now.is_archive and wanted.coldness > now.coldness):
        return None
    return wanted


def merged(catalogue: Iterable[Judged], listing: Iterable[Listed]) -> Iterator[tuple[Judged | None, Listed | None]]:
    """Pairs of the same hash; what only one of them has comes with None. Both in the order of hashes."""
    blobs, objects = iter(catalogue), iter(listing)
    blob, listed = next(blobs, None), next(objects, None)
    while blob is not None or listed is not None:
        if listed is None or (blob is not None and blob.sha256 < listed.sha256):
            yield blob, None
            blob = next(blobs, None)
        elif blob is None or listed.sha256 < blob.sha256:
            yield None, listed
            listed = next(objects, None)
        else:
            yield blob, listed
            blob, listed = next(blobs, None), next(objects, None)
