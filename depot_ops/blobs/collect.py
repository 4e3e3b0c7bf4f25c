"""Collection: content that nothing refers to is marked, waits, is condemned, and then goes from every copy.

A mark says since when at least nothing has referred to the content. It may go when that is longer ago than the time of
grace, and than the oldest kept backup: whatever can be restored finds its content. Condemning and removing are two
transactions, so that a collector that dies between them leaves nothing that can be referred to without being sent.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, LiteralString

import psycopg
from pydantic import AwareDatetime, BaseModel, Field

from depot_api.blobstore.bucket import BucketCopy
from depot_api.blobstore.errors import BlobDamaged, BlobMissing, BlobUnreachable
from depot_api.blobstore.examine import examine
from depot_api.blobstore.layout import Layout
from depot_api.blobstore.store import BlobStore
from depot_ops.blobs.inventory import PREFIXES, CopyUnreachable, list_objects, require_store
from depot_ops.blobs.scrub import EVIDENCE
from depot_ops.blobs.scrub_state import write_durably
from depot_ops.copies.holdings import look
from depot_ops.evidence import Figures, Finding, Status
from depot_ops.places import Place, PlaceError
from depot_ops.postgres.base_record import BaseRecordUnusable, find_base_backups, load_base_backup
from depot_ops.postgres.client_tools import BadAddress, parse_address
from depot_ops.postgres.dump_record import BackupRecord, RecordTooNew, RecordUnusable, find_backups, load_record

MARKED_AT_ONCE = 5_000
REMOVED_AT_ONCE = 500
COLLECTOR_LOCK = 0x626C6F62  # "blob": an advisory lock of the depot's database
LOCK_TIMEOUT = "2s"  # the session of a collection that has just ended, or was killed, ends a moment after it
COLLECTED = "blobs_collected"

_NEXT = """
    SELECT sha256::bytea FROM blobs WHERE removed_at IS NULL AND sha256 > %s ORDER BY sha256 LIMIT %s
"""
_DUE = """
    SELECT t.sha256::bytea, b.stored_bytes FROM blob_tombstones t JOIN blobs b ON b.sha256 = t.sha256
    WHERE t.condemned_at IS NULL AND b.removed_at IS NULL AND t.unreferenced_at < %s AND t.sha256 > %s
    ORDER BY t.sha256 LIMIT %s
"""
_WAITING = """
    SELECT count(*), coalesce(sum(b.stored_bytes), 0)::bigint FROM blob_tombstones t JOIN blobs b ON b.sha256 = t.sha256
    WHERE t.condemned_at IS NULL AND b.removed_at IS NULL AND t.unreferenced_at >= %s
"""
# Of uploads that never ended, also of content that was removed once: the way out is the same for all.
_ADOPT = """
    INSERT INTO blobs (sha256, size_bytes, stored_bytes, stored_crc32) VALUES (%s, %s, %s, %s)
    ON CONFLICT (sha256) DO UPDATE SET removed_at = NULL, size_bytes = excluded.size_bytes,
        stored_bytes = excluded.stored_bytes, stored_crc32 = excluded.stored_crc32, verified_at = now()
    WHERE blobs.removed_at IS NOT NULL AND NOT EXISTS (SELECT FROM blob_tombstones t WHERE t.sha256 = blobs.sha256)
"""
_KNOWN = """
    SELECT encode(sha256, 'hex') FROM blobs b WHERE sha256 = ANY (%s)
        AND (removed_at IS NULL OR EXISTS (SELECT FROM blob_tombstones t WHERE t.sha256 = b.sha256))
"""

# The catalogue was recovered since. What was condemned is found again, like an upload that never ended.
_FORGET = "DELETE FROM blob_tombstones WHERE history <> log_history()"

Owner = psycopg.Connection[Any]
Remover = Callable[[Sequence[str]], None]
"""Takes objects from one copy for good. Gone already is fine; a copy that cannot be reached raises."""


class CollectError(Exception):
    """Nothing more is collected; the message says why and what to do."""


@dataclass(frozen=True)
class CollectPolicy:
    """When content may go."""

    backup_dir: Path
    grace: timedelta
    delete: bool = False
    clock_error: timedelta = timedelta(minutes=5)
    """A backup says by the clock of whoever took it when it began."""
    open_copy: Callable[[], Place] | None = None
    """The second place of backups, where there is one. What is kept there counts as what is kept here."""


class Collected(BaseModel):
    """The evidence of one collection."""

    schema_version: Literal[1] = 1
    started_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    duration_seconds: float = 0.0
    unreferenced_before: AwareDatetime
    """What was marked later stays: within the time of grace, or a kept backup may refer to it."""
    backups: int
    """So many kept backups were asked."""
    adopted_objects: int = 0
    """Objects without a record, of uploads that never ended: recorded now, and marked."""
    unreadable_objects: list[str] = []
    marked_objects: int = 0
    waiting_objects: int = 0
    waiting_bytes: int = 0
    due_objects: int = 0
    due_bytes: int = 0
    removed_objects: int = 0


def all_copies(store: Path, mirror: Path | None, bucket: BucketCopy | None = None) -> Remover:
    """They go together, under the lock that keeps one from being copied to another meanwhile."""
    copies = BlobStore(store, mirror, bucket)

    def remove(hashes: Sequence[str]) -> None:
        for root in filter(None, (store, mirror)):
            require_store(root)  # a disk that is not mounted would look as if all were gone from it
        copies.remove(hashes)

    return remove


def collect(owner_url: str, store: Path, removers: Sequence[Remover], policy: CollectPolicy) -> Collected:
    """Mark what nothing refers to; with `policy.delete` also remove what is due. Raises CollectError.

    Without `delete` no byte is touched: `due_objects` tells what would go. Killed, it goes on the next time.
    """
    started = time.monotonic()
    try:
        layout = require_store(store)
        with _sole_collector(owner_url) as owner:
            now = _server_time(owner)
            began = [*_backups_began(policy.backup_dir), *_copies_began(policy.open_copy)]
            horizon = min([now - policy.grace, *(moment - policy.clock_error for moment in began)])
            result = Collected(unreferenced_before=horizon, backups=len(began))
            uploads_since = now - policy.grace
            owner.execute(_FORGET)
            _adopt(owner, layout, uploads_since, result)
            _mark(owner, uploads_since, result)
            _condemn(owner, uploads_since, policy.delete, result)
            if policy.delete:
                _remove(owner, removers, result)
            row = owner.execute(_WAITING, (horizon,)).fetchone()
            assert row is not None, "counts are one row"
            result.waiting_objects, result.waiting_bytes = row
        result.duration_seconds = round(time.monotonic() - started, 3)
        (store / EVIDENCE).mkdir(exist_ok=True)
        write_durably(store / EVIDENCE / f"collection-{result.started_at:%Y%m%dT%H%M%S%fZ}.json", result)
    except (BadAddress, psycopg.Error) as error:
        raise CollectError(f"The depot's database refused: {str(error).strip()}") from error
    except (CopyUnreachable, BlobUnreachable, OSError) as error:
        raise CollectError(str(error)) from error
    return result


@contextmanager
def _sole_collector(owner_url: str) -> Iterator[Owner]:
    parse_address(owner_url)
    with psycopg.connect(owner_url, autocommit=True) as owner:
        owner.execute("SELECT set_config('lock_timeout', %s, false)", (LOCK_TIMEOUT,))
        try:
            owner.execute("SELECT pg_advisory_lock(%s)", (COLLECTOR_LOCK,))
        except psycopg.errors.LockNotAvailable:
            raise CollectError("Another collection is under way. Leave it to that one.") from None
        owner.execute("RESET lock_timeout")
        owner.execute("SET statement_timeout = 0")
        yield owner


def _server_time(owner: Owner) -> datetime:
    row = owner.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    moment: datetime = row[0]
    return moment


def _backups_began(directory: Path) -> list[datetime]:
    """When each kept backup began: what it can be recovered to comes after that. Raises CollectError."""
    began = _began(directory, str(directory), _record_of)
    if not began:
        raise CollectError(
            f"There is no backup in {directory}, so nothing is collected. Mount its disk, or take a backup first."
        )
    return began


def _copies_began(open_copy: Callable[[], Place] | None) -> list[datetime]:
    """The same of the backups that are kept at the second place, by their records there. Raises CollectError."""
    if open_copy is None:
        return []
    try:
        with TemporaryDirectory() as home:
            holdings = look(place := open_copy(), Path(home))
            holdings.fetch_dump_records()
            holdings.fetch_base_records()
            unusable = "; ".join(holdings.damaged.values())
            began = _began(holdings.backup_dir, str(place), load_record)
    except PlaceError as error:
        unusable = str(error)
    if unusable:
        raise CollectError(f"The second place does not say which backups it keeps, so nothing is collected: {unusable}")
    return began


def _began(directory: Path, told: str, record_of: Callable[[Path], BackupRecord | None]) -> list[datetime]:
    try:
        began = [record.started_at for dump in find_backups(directory) if (record := record_of(dump))]
        return began + [load_base_backup(path).record.started_at for path in find_base_backups(directory)]
    except (RecordUnusable, RecordTooNew, BaseRecordUnusable, OSError) as error:
        raise CollectError(
            f"A backup in {told} does not say what it needs, so nothing is collected: {error}"
        ) from error


def _record_of(dump: Path) -> BackupRecord | None:
    """None when the dump was pruned since it was found: its name goes first, and its record after that."""
    try:
        return load_record(dump)
    except RecordUnusable:
        if dump.exists():
            raise
        return None


def _adopt(owner: Owner, layout: Layout, before: datetime, result: Collected) -> None:
    """Record objects that no record knows. An upload that is under way writes its record in a moment, or waits."""
    for prefix in PREFIXES:
        old = [sha for sha, status in list_objects(layout, prefix).items() if status.st_mtime < before.timestamp()]
        for sha256 in _unknown(owner, old):
            try:
                blob = examine(layout, sha256)
            except BlobMissing:
                continue
            except BlobDamaged:
                result.unreadable_objects.append(sha256)
                continue
            row = (bytes.fromhex(sha256), blob.size_bytes, blob.stored_bytes, blob.stored_crc32)
            result.adopted_objects += owner.execute(_ADOPT, row).rowcount


def _unknown(owner: Owner, hashes: list[str]) -> list[str]:
    known = owner.execute(_KNOWN, ([bytes.fromhex(sha256) for sha256 in hashes],))
    return sorted(set(hashes) - {row[0] for row in known})


def _mark(owner: Owner, uploads_since: datetime, result: Collected) -> None:
    last = b""
    while hashes := [row[0] for row in owner.execute(_NEXT, (last, MARKED_AT_ONCE))]:
        result.marked_objects += _number(owner, "SELECT mark_unreferenced(%s, %s)", hashes, uploads_since)
        last = hashes[-1]


def _condemn(owner: Owner, uploads_since: datetime, delete: bool, result: Collected) -> None:
    last, horizon = b"", result.unreferenced_before
    while due := owner.execute(_DUE, (horizon, last, REMOVED_AT_ONCE)).fetchall():
        result.due_objects += len(due)
        result.due_bytes += sum(row[1] for row in due)
        last = due[-1][0]
        if delete:
            _number(owner, "SELECT condemn_blobs(%s, %s, %s)", [row[0] for row in due], horizon, uploads_since)


def _remove(owner: Owner, removers: Sequence[Remover], result: Collected) -> None:
    """Also what an earlier collection condemned and could not remove from every copy."""
    last = b""
    while True:
        with owner.transaction():
            gone = [row[0] for row in owner.execute("SELECT hold_condemned(%s, %s)", (last, REMOVED_AT_ONCE))]
            if not gone:
                return
            for remove in removers:
                remove([sha256.hex() for sha256 in gone])
            owner.execute("DELETE FROM blob_tombstones WHERE sha256 = ANY (%s)", (gone,))
        result.removed_objects += len(gone)
        last = gone[-1]


def _number(owner: Owner, query: LiteralString, *parameters: object) -> int:
    row = owner.execute(query, parameters).fetchone()
    assert row is not None
    return int(row[0])


def check_collected(store: Path, max_age: timedelta) -> Finding:
    """Did a collection come to its end lately, and could it read all that it met?"""
    documents = sorted((store / EVIDENCE).glob("collection-*.json"))
    if not documents:
        detail = f"{store} has no evidence of a collection. Run `depot-ops blobs collect`."
        return Finding(check=COLLECTED, status=Status.UNKNOWN, detail=detail)
    try:
        newest = Collected.model_validate_json(documents[-1].read_bytes())
    except (OSError, ValueError) as error:
        return Finding(check=COLLECTED, status=Status.UNKNOWN, detail=f"{documents[-1]} cannot be read: {error}")
    age_seconds = round((datetime.now(UTC) - newest.started_at).total_seconds())
    figures: Figures = {
        "age_seconds": age_seconds,
        "waiting_objects": newest.waiting_objects,
        "waiting_bytes": newest.waiting_bytes,
        "due_objects": newest.due_objects - newest.removed_objects,
        "unreadable_objects": len(newest.unreadable_objects),
    }
    detail = (
        f"collected {newest.started_at:%Y-%m-%d %H:%M} UTC: {newest.removed_objects:,} of {newest.due_objects:,} due"
        f" objects removed, {newest.waiting_objects:,} wait, {len(newest.unreadable_objects):,} cannot be read"
    )
    bad = age_seconds > max_age.total_seconds() or bool(newest.unreadable_objects)
    return Finding(check=COLLECTED, status=Status.UNHEALTHY if bad else Status.HEALTHY, detail=detail, figures=figures)
