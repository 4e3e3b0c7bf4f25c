"""What a place holds, told by its own listing and its own records: nothing here has to be left for it."""

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from depot_ops.copies.layout import BACKUPS, WAL
from depot_ops.evidence import Figures, Finding, Status
from depot_ops.places import Place, PlaceDamaged
from depot_ops.postgres.base_backup import CHAIN_INTACT
from depot_ops.postgres.base_record import (
    ARCHIVE_NAME,
    RECORD_NAME,
    BaseBackup,
    BaseBackupRecord,
    BaseRecordUnusable,
    chain_of,
    find_base_backups,
    load_base_backup,
)
from depot_ops.postgres.dump_record import GLANCE, RecordTooNew, RecordUnusable, find_backups, load_record, record_path
from depot_ops.postgres.dump_record import PATTERN as DUMP_PATTERN
from depot_ops.postgres.wal.archive import FILE_SUFFIX, RECORD_SUFFIX
from depot_ops.postgres.wal.names import WalName, parse_lsn, parse_wal_name, segment_name

WORKERS = 8
_BASE_FILE = re.compile(rf"{BACKUPS}/base/(\d+)/([^./][^/]*)/")
_BASE_RECORD = re.compile(_BASE_FILE.pattern + re.escape(RECORD_NAME))
_DUMP_RECORD = re.compile(rf"{BACKUPS}/[^./][^/]*\.dump\.json")
_DRILL = re.compile(rf"{BACKUPS}/drills/[^./][^/]*\.json")
_LOG = re.compile(rf"{WAL}/(\d+)/[0-9A-F]{{8}}/([^/]+)({re.escape(FILE_SUFFIX)}|{re.escape(RECORD_SUFFIX)})")


@dataclass(frozen=True, slots=True)
class Holdings:
    """A listing of the place, and a directory into which is fetched what is to be read, under the same names."""

    place: Place
    home: Path
    sizes: Mapping[str, int]
    damaged: dict[str, str] = field(default_factory=dict)
    """What was found wrong with the file under this key when it was read."""

    @property
    def backup_dir(self) -> Path:
        return self.home / BACKUPS

    @property
    def archive_root(self) -> Path:
        return self.home / WAL

    def fetch(self, key: str) -> Path:
        """Bring one file here. Raises PlaceError."""
        path = self.home / key
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.place.get(key, path)
        return path

    def fetch_base_records(self) -> None:
        self._fetch_all(_BASE_RECORD)

    def fetch_dump_records(self) -> None:
        self._fetch_all(_DUMP_RECORD)

    def fetch_drills(self) -> None:
        self._fetch_all(_DRILL)

    def _fetch_all(self, pattern: re.Pattern[str]) -> None:
        def fetch(key: str) -> None:
            try:
                self.fetch(key)
            except PlaceDamaged as error:
                self.damaged[key] = str(error)

        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(fetch, filter(pattern.fullmatch, self.sizes)))

    def dumps(self) -> list[Path]:
        """Where the dumps would lie whose records were fetched, oldest first."""
        return find_backups(self.backup_dir)

    def bases(self, system_identifier: int | None = None) -> list[Path]:
        """Where the base backups would lie whose records were fetched, oldest first."""
        found = find_base_backups(self.backup_dir, system_identifier)
        return [path for path in found if (path / RECORD_NAME).exists()]

    def systems(self) -> list[int]:
        """The clusters of which there is a base backup or log."""
        matches = (_BASE_FILE.match(key) or _LOG.fullmatch(key) for key in self.sizes)
        return sorted({int(match[1]) for match in matches if match})

    def dump_names(self) -> set[str]:
        """Every dump that is there, with or without its record."""
        names = {key.removeprefix(f"{BACKUPS}/").split("/")[0] for key in self.sizes if key.startswith(f"{BACKUPS}/")}
        return {name for name in names if fnmatchcase(name, DUMP_PATTERN)}

    def base_labels(self, system_identifier: int) -> set[str]:
        """Every base backup of which something is there, with or without its record."""
        matches = (match for key in self.sizes if (match := _BASE_FILE.match(key)))
        return {match[2] for match in matches if int(match[1]) == system_identifier}

    def log(self, system_identifier: int) -> list[WalName]:
        """The files of the log of this cluster, by timeline and then name."""
        matches = (match for key in self.sizes if (match := _LOG.fullmatch(key)))
        names = {match[2] for match in matches if int(match[1]) == system_identifier}
        return [name for text in sorted(names) if (name := parse_wal_name(text))]

    def files_of(self, dump: Path) -> list[Path]:
        """The file of a dump, or those of its directory, in the order of their names."""
        key = self.key_of(dump)
        return [self.home / held for held in sorted(self.sizes) if held == key or held.startswith(f"{key}/")]

    def key_of(self, path: Path) -> str:
        """The key of what has, or would have, its place below `home`."""
        return path.relative_to(self.home).as_posix()

    def size_of(self, path: Path) -> int | None:
        """The size there of a file; None when it is not there."""
        return self.sizes.get(self.key_of(path))

    def size_of_dump(self, dump: Path) -> int | None:
        """The size there of a dump, a file or a directory; None when it is not there."""
        sizes = [self.sizes[self.key_of(path)] for path in self.files_of(dump)]
        return sum(sizes) if sizes else None

    def problem_of_dump(self, dump: Path) -> str | None:
        """What keeps this dump, of which the record was fetched, from being a backup. Does not read it through."""
        try:
            return self._difference(dump, self.size_of_dump(dump), load_record(dump).size_bytes)
        except (RecordUnusable, RecordTooNew) as error:
            return str(error)

    def problem_of_base(self, path: Path) -> str | None:
        """What keeps a base backup and all that it builds on from being restored. Does not read it through."""
        try:
            chain = chain_of(load_base_backup(path))
        except BaseRecordUnusable as error:
            return str(error)
        return next(filter(None, (self._missing(element) for element in chain)), None)

    def has_log_of(self, record: BaseBackupRecord) -> bool:
        """Is all of the log there that this base backup needs to become consistent?"""
        size = record.segment_size_bytes
        first, last = parse_lsn(record.start_lsn) // size, (parse_lsn(record.stop_lsn) - 1) // size
        needed = {segment_name(record.timeline, number, size) for number in range(first, last + 1)}
        return needed <= {name.name for name in self.log(record.system_identifier)}

    def _missing(self, backup: BaseBackup) -> str | None:
        if self.size_of(backup.manifest) is None:
            return f"{self._told(backup.manifest)} is gone; the backup's record is still there"
        return self._difference(backup.archive, self.size_of(backup.archive), backup.record.stored_size_bytes)

    def _difference(self, path: Path, size_bytes: int | None, expected_bytes: int) -> str | None:
        if size_bytes is None:
            return f"{self._told(path)} is gone; its record is still there"
        if size_bytes != expected_bytes:
            return f"{self._told(path)} has {size_bytes:,} of {expected_bytes:,} bytes"
        return None

    def _told(self, path: Path) -> str:
        return f"{self.key_of(path)} at {self.place}"


def listing(place: Place) -> dict[str, int]:
    """The size of everything there, by key. Raises PlaceError."""
    return {entry.key: entry.size_bytes for folder in (BACKUPS, WAL) for entry in place.list(f"{folder}/")}


def look(place: Place, home: Path) -> Holdings:
    """List the place, with `home` to fetch into. Raises PlaceError."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    holdings = Holdings(place, home, listing(place))
    holdings.backup_dir.mkdir(exist_ok=True)
    holdings.archive_root.mkdir(exist_ok=True)
    return holdings


def fetch_dump(place: Place, name: str, home: Path) -> Path:
    """Bring a dump and its record here. Raises PlaceError; restoring it proves it by its record."""
    holdings = look(place, home)
    dump = holdings.backup_dir / name
    for path in (record_path(dump), *(holdings.files_of(dump) or [dump])):
        holdings.fetch(holdings.key_of(path))
    return dump


def list_copy(holdings: Holdings) -> list[Finding]:
    """Every dump and base backup at the place: is it whole? What has no record there is none. Raises PlaceError."""
    holdings.fetch_dump_records()
    holdings.fetch_base_records()
    damaged = [finding(GLANCE, Path(key).name, problem) for key, problem in holdings.damaged.items()]
    dumps = [
        finding(GLANCE, path.name, holdings.problem_of_dump(path), {"size_bytes": holdings.size_of_dump(path) or 0})
        for path in holdings.dumps()
    ]
    bases = [
        finding(
            CHAIN_INTACT,
            path.name,
            holdings.problem_of_base(path),
            {"size_bytes": holdings.size_of(path / ARCHIVE_NAME) or 0},
        )
        for path in holdings.bases()
    ]
    return [*damaged, *dumps, *bases]


def finding(check: str, name: str, problem: str | None, figures: Figures | None = None) -> Finding:
    """What was found of one thing at the place."""
    return Finding(
        check=check,
        status=Status.UNHEALTHY if problem else Status.HEALTHY,
        detail=problem or "as its record says",
        figures={"file": name, **(figures or {})},
    )
