"""What is copied: the proved backups, the log and the evidence that lie here, each with its record as its last file.

A record is copied last and deleted first: where there is a record, there is all that it speaks of.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from depot_ops.copies.layout import backup_key, wal_key
from depot_ops.drills.record import DrillRecordUnusable, DrillResult, find_drills, load_drill
from depot_ops.evidence import Status, worst
from depot_ops.postgres.base_record import RECORD_NAME, BaseRecordUnusable, find_base_backups, load_base_backup
from depot_ops.postgres.dump_checks import sha256_of
from depot_ops.postgres.dump_record import RecordTooNew, RecordUnusable, find_backups, load_record, record_path
from depot_ops.postgres.wal.archive import ArchiveError, WalArchive, archived_systems
from depot_ops.postgres.wal.names import WalKind, WalName


class UnitDamaged(Exception):
    """What lies here is not what was written; the message names it."""


class UnitKind(StrEnum):
    """What a unit is."""

    BASE = "base_backup"
    WAL = "wal"
    DUMP = "dump"
    DRILL = "drill"


@dataclass(frozen=True, slots=True)
class UnitFile:
    """A file here, and its key at the place."""

    key: str
    path: Path
    sha256: str | None = None
    """With which its record says that it was written; None for what is proved in another way."""

    @property
    def size_bytes(self) -> int:
        return self.path.stat().st_size


@dataclass(frozen=True, slots=True)
class Unit:
    """What is there whole or not at all; its record is the last of its files."""

    kind: UnitKind
    name: str
    files: tuple[UnitFile, ...]
    parent: str | None = None
    """The key of the record that has to be there before: an incremental backup is nothing without it."""
    prove: Callable[[], object] = lambda: None
    """Raises when the files here are not what was written, as far as no `sha256` says so."""

    @property
    def record_key(self) -> str:
        return self.files[-1].key

    @property
    def finished_at(self) -> datetime:
        return datetime.fromtimestamp(self.files[-1].path.stat().st_mtime, UTC)

    def missing(self, held: Mapping[str, int]) -> list[UnitFile]:
        """Those of its files that `held`, sizes by key, has not or not with their size. Raises FileNotFoundError."""
        return [file for file in self.files if held.get(file.key) != file.size_bytes]


def units(backup_dir: Path, archive_root: Path | None) -> Iterator[Unit]:
    """Everything here that is whole and proved, in the order in which it is copied. Raises OSError, ArchiveError."""
    yield from _base_backups(backup_dir)
    yield from _dumps(backup_dir)
    if archive_root is not None:
        yield from log_units(archive_root)
    yield from _drills(backup_dir)


def log_units(archive_root: Path) -> Iterator[Unit]:
    """The files of the log in the archive. Raises ArchiveError."""
    for system in archived_systems(archive_root):
        yield from _log(WalArchive(archive_root, system))


def _base_backups(backup_dir: Path) -> Iterator[Unit]:
    for path in find_base_backups(backup_dir):
        try:
            backup = load_base_backup(path)
        except BaseRecordUnusable:
            continue  # chain_intact is red for it; nothing proves it, so that it is no backup to copy
        record = backup.record
        yield Unit(
            UnitKind.BASE,
            record.label,
            (
                UnitFile(backup_key(backup_dir, backup.manifest), backup.manifest, record.manifest_sha256),
                UnitFile(backup_key(backup_dir, backup.archive), backup.archive, record.archive_sha256),
                UnitFile(backup_key(backup_dir, path / RECORD_NAME), path / RECORD_NAME),
            ),
            parent=backup_key(backup_dir, path.with_name(record.parent) / RECORD_NAME) if record.parent else None,
        )


def _dumps(backup_dir: Path) -> Iterator[Unit]:
    for path in find_backups(backup_dir):
        try:
            record = load_record(path)
        except (RecordUnusable, RecordTooNew):
            continue  # `backup list` is red for it
        if worst(record.validation) is Status.HEALTHY:
            described = UnitFile(backup_key(backup_dir, record_path(path)), record_path(path))
            if path.is_dir():
                files = [UnitFile(backup_key(backup_dir, file), file) for file in sorted(path.iterdir())]
                yield Unit(UnitKind.DUMP, path.name, (*files, described), prove=_directory_proof(path, record.sha256))
            else:
                yield Unit(
                    UnitKind.DUMP, path.name, (UnitFile(backup_key(backup_dir, path), path, record.sha256), described)
                )


def _directory_proof(path: Path, sha256: str) -> Callable[[], object]:
    def prove() -> None:
        if sha256_of(path) != sha256:
            raise UnitDamaged(f"{path} has not the SHA-256 with which it was written, {sha256}")

    return prove


def _log(archive: WalArchive) -> Iterator[Unit]:
    # Histories first: by them a recovery finds its way.
    for name in sorted(archive.names(), key=lambda name: (name.kind is not WalKind.HISTORY, name.name)):
        file, record = archive.file_path(name), archive.record_path(name)
        if record.exists():  # without one it is just being stored, or `wal verify` is red for it
            files = tuple(UnitFile(wal_key(archive.root, path), path) for path in (file, record))
            yield Unit(UnitKind.WAL, name.name, files, prove=_proof(archive, name))


def _proof(archive: WalArchive, name: WalName) -> Callable[[], object]:
    return lambda: archive.fetch(name)


def _drills(backup_dir: Path) -> Iterator[Unit]:
    for path in find_drills(backup_dir):
        try:
            ended = load_drill(path).result is not DrillResult.UNFINISHED
        except DrillRecordUnusable:
            continue
        if ended:
            pages = (page for suffix in (".md", ".html") if (page := path.with_suffix(suffix)).exists())
            files = tuple(UnitFile(backup_key(backup_dir, file), file) for file in (*pages, path))
            yield Unit(UnitKind.DRILL, path.stem, files)


def hash_of(file: UnitFile) -> str:
    """With what the file has to arrive."""
    return file.sha256 or sha256_of(file.path)


def is_sound(unit: Unit, file: UnitFile) -> bool:
    """Is the file here what was written?"""
    try:
        unit.prove()
        return file.sha256 is None or sha256_of(file.path) == file.sha256
    except (ArchiveError, UnitDamaged, FileNotFoundError):
        return False
