"""Reading the copy again, and comparing every hash with what the records there say."""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from depot_ops.copies.copying import sole_copier
from depot_ops.copies.holdings import Holdings, finding
from depot_ops.copies.units import is_sound, units
from depot_ops.evidence import Finding
from depot_ops.places import PlaceMissing
from depot_ops.postgres.base_record import (
    ARCHIVE_NAME,
    MANIFEST_NAME,
    RECORD_NAME,
    BaseRecordUnusable,
    load_base_backup,
)
from depot_ops.postgres.dump_record import RecordTooNew, RecordUnusable, load_record, record_path
from depot_ops.postgres.recovery_source import CopiedArchive
from depot_ops.postgres.wal.archive import ArchiveDamaged, NotArchived
from depot_ops.postgres.wal.names import WalName

INTACT = "copy_intact"
NAMED_DAMAGED = 10
WORKERS = 4


def verify_copy(holdings: Holdings, chosen: Callable[[str], bool] = lambda _: True) -> Iterator[Finding]:
    """Read everything `chosen` by name at the place: one finding for each dump and base backup, and each cluster's log.

    Raises PlaceError when it cannot be read; what is damaged there or gone from there is a finding, and is noted in
    `holdings`.
    """
    holdings.fetch_dump_records()
    holdings.fetch_base_records()
    holdings.fetch_drills()
    for key, problem in holdings.damaged.items():
        yield finding(INTACT, key, problem)
    for path in filter(lambda path: chosen(path.name), holdings.dumps()):
        yield finding(INTACT, path.name, damage_of_dump(holdings, path))
    for path in filter(lambda path: chosen(path.name), holdings.bases()):
        yield finding(INTACT, path.name, damage_of_base(holdings, path) or holdings.problem_of_base(path))
    for system in holdings.systems():
        yield _verify_log(holdings, system, chosen)


def damage_of_dump(holdings: Holdings, dump: Path) -> str | None:
    """What of a dump differs from its record, of which the place has one too. Reads it."""
    try:
        record = load_record(dump)
    except (RecordUnusable, RecordTooNew) as error:
        return _noted(holdings, record_path(dump), str(error))
    files = holdings.files_of(dump)
    if files in ([], [dump]):
        return _damage(holdings, dump, record.sha256)
    # As sha256_of takes it of a directory here.
    lines = "".join(f"{holdings.place.sha256(holdings.key_of(path))}  {path.name}\n" for path in files)
    if hashlib.sha256(lines.encode()).hexdigest() == record.sha256:
        return None
    told = f"{holdings.key_of(dump)} at {holdings.place} has not the SHA-256 with which it was written, {record.sha256}"
    for path in files:
        _noted(holdings, path, told)
    return told


def damage_of_base(holdings: Holdings, path: Path) -> str | None:
    """What of a base backup, alone, differs from its record. Reads it."""
    try:
        record = load_base_backup(path).record
    except BaseRecordUnusable as error:
        return _noted(holdings, path / RECORD_NAME, str(error))
    return _damage(holdings, path / MANIFEST_NAME, record.manifest_sha256) or _damage(
        holdings, path / ARCHIVE_NAME, record.archive_sha256
    )


def _damage(holdings: Holdings, path: Path, sha256: str) -> str | None:
    try:
        if holdings.place.sha256(holdings.key_of(path)) == sha256:
            return None
    except PlaceMissing as error:
        return _noted(holdings, path, str(error))
    told = f"{holdings.key_of(path)} at {holdings.place} has not the SHA-256 with which it was written, {sha256}"
    return _noted(holdings, path, told)


def _noted(holdings: Holdings, path: Path, problem: str) -> str:
    holdings.damaged[holdings.key_of(path)] = problem
    return problem


def remove_damaged(holdings: Holdings, backup_dir: Path, archive_root: Path | None) -> list[str]:
    """Remove there what was found damaged there and is sound here, so that the next pass copies it again.

    The record stays, if it is sound, and is the last to go: what has none nobody reads, and no later repair would find
    the damage. Returns the keys. Raises PlaceError, and CopyRunning when a copy is running.
    """
    removed = []
    with sole_copier(backup_dir):
        for unit in units(backup_dir, archive_root):
            for file in unit.files:
                if file.key in holdings.damaged and is_sound(unit, file):
                    holdings.place.delete(file.key)
                    removed.append(file.key)
    return removed


def _verify_log(holdings: Holdings, system: int, chosen: Callable[[str], bool]) -> Finding:
    archive = CopiedArchive(holdings, system)

    def problem(name: WalName) -> str | None:
        try:
            archive.fetch(name)
        except (ArchiveDamaged, NotArchived) as error:
            for path in (archive.file_path(name), archive.record_path(name)):  # either may be what is wrong
                _noted(holdings, path, str(error))
            return f"{name.name}: {error}"
        finally:
            archive.record_path(name).unlink(missing_ok=True)
        return None

    # Without its record a file is on its way there, or a killed pass left it: the next one completes it.
    recorded = [name for name in archive.names() if holdings.size_of(archive.record_path(name)) is not None]
    names = [name for name in recorded if chosen(name.name)]
    with ThreadPoolExecutor(WORKERS) as pool:
        problems = [text for text in pool.map(problem, names) if text]
    more = f" and {len(problems) - NAMED_DAMAGED} more" if len(problems) > NAMED_DAMAGED else ""
    told = "; ".join(problems[:NAMED_DAMAGED]) + more
    return finding(INTACT, f"the log of {system}", told, {"files": len(names), "damaged_files": len(problems)})
