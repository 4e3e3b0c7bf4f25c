"""Reading the copy again, and comparing every hash with what the records there say."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from depot_ops.copies.holdings import Holdings, finding
from depot_ops.evidence import Finding
from depot_ops.places import PlaceDamaged, PlaceMissing
from depot_ops.postgres.base_record import (
    ARCHIVE_NAME,
    MANIFEST_NAME,
    BaseRecordUnusable,
    load_base_backup,
)
from depot_ops.postgres.dump_checks import sha256_of
from depot_ops.postgres.dump_record import RecordTooNew, RecordUnusable, load_record
from depot_ops.postgres.recovery_source import CopiedArchive
from depot_ops.postgres.wal.archive import ArchiveDamaged, NotArchived
from depot_ops.postgres.wal.names import WalName

INTACT = "copy_intact"
NAMED_DAMAGED = 10
WORKERS = 4


def verify_copy(holdings: Holdings) -> Iterator[Finding]:
    """Read everything at the place: one finding for each dump and base backup, one for each cluster's log.

    Raises PlaceError when it cannot be read; what is damaged there or gone from there is a finding.
    """
    holdings.fetch_dump_records()
    holdings.fetch_base_records()
    for key, problem in holdings.unreadable.items():
        yield finding(INTACT, key, problem)
    for path in holdings.dumps():
        yield finding(INTACT, path.name, damage_of_dump(holdings, path))
    for path in holdings.bases():
        yield finding(INTACT, path.name, holdings.problem_of_base(path) or damage_of_base(holdings, path))
    for system in holdings.systems():
        yield _verify_log(holdings, system)


def damage_of_dump(holdings: Holdings, dump: Path) -> str | None:
    """What of a dump differs from its record, of which the place has one too. Reads it."""
    try:
        return _damage(holdings, dump, load_record(dump).sha256)
    except (RecordUnusable, RecordTooNew) as error:
        return str(error)


def damage_of_base(holdings: Holdings, path: Path) -> str | None:
    """What of a base backup, alone, differs from its record. Reads it."""
    try:
        record = load_base_backup(path).record
    except BaseRecordUnusable as error:
        return str(error)
    return _damage(holdings, path / MANIFEST_NAME, record.manifest_sha256) or _damage(
        holdings, path / ARCHIVE_NAME, record.archive_sha256
    )


def _damage(holdings: Holdings, path: Path, sha256: str) -> str | None:
    key = path.relative_to(holdings.home).as_posix()
    try:
        holdings.fetch(key)
        damaged = sha256_of(path) != sha256
    except (PlaceDamaged, PlaceMissing) as error:
        return str(error)
    finally:
        path.unlink(missing_ok=True)
    return f"{key} at {holdings.place} has not the SHA-256 with which it was written, {sha256}" if damaged else None


def _verify_log(holdings: Holdings, system: int) -> Finding:
    archive = CopiedArchive(holdings, system)

    def problem(name: WalName) -> str | None:
        try:
            archive.fetch(name)
        except (ArchiveDamaged, NotArchived) as error:
            return f"{name.name}: {error}"
        finally:
            archive.record_path(name).unlink(missing_ok=True)
        return None

    # Without its record a file is on its way there, or a killed pass left it: the next one completes it.
    names = [name for name in archive.names() if holdings.size_of(archive.record_path(name)) is not None]
    with ThreadPoolExecutor(WORKERS) as pool:
        problems = [text for text in pool.map(problem, names) if text]
    more = f" and {len(problems) - NAMED_DAMAGED} more" if len(problems) > NAMED_DAMAGED else ""
    told = "; ".join(problems[:NAMED_DAMAGED]) + more
    return finding(INTACT, f"the log of {system}", told, {"files": len(names), "damaged_files": len(problems)})
