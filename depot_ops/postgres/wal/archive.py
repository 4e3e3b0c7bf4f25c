"""The archive of the log: an inventory of files with their hashes, which nothing ever overwrites.

`<archive>/<system identifier>/<timeline>/<name>.gz` is the file and `<name>.json` its record. Both appear whole: they
are written under another name, flushed, and then linked. The record comes last; a file whose writer was killed before
it is complete all the same, and whoever stores it again adds the record.

Nothing heavy is imported here: a server that pushes segments by command starts an interpreter for each.
"""

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, cast

from isal import igzip, isal_zlib

from depot_ops.durable import PARTIAL_PREFIX, fsync, make_directories, partial_of, remove_debris
from depot_ops.postgres.wal.content import BadWalFile, SegmentHeader, check_content, parse_history
from depot_ops.postgres.wal.names import DEFAULT_SEGMENT_SIZE_BYTES, WalName, history_name, parse_wal_name

SCHEMA_VERSION = 1
COMPRESSION_LEVEL = 1
GZIP = 31  # what zlib calls the gzip format
DecompressionError = cast(type[Exception], isal_zlib.error)  # the stub takes the class for an instance
FILE_SUFFIX = ".gz"
RECORD_SUFFIX = ".json"


class ArchiveError(Exception):
    """The archive could not be read or written; the message says why and what to do."""


class ArchiveConflict(ArchiveError):
    """The archive holds another file under this name, and keeps it."""


class ArchiveFull(ArchiveError):
    """The archive has no room."""


class ArchiveDamaged(ArchiveError):
    """What the archive holds is not what was stored."""


class NotArchived(ArchiveError):
    """The archive was looked at, and does not have the file."""


class Outcome(StrEnum):
    """What storing a file came to."""

    STORED = "stored"
    ALREADY_THERE = "already_there"


class WalRecord(NamedTuple):
    """One file of the inventory."""

    name: str
    system_identifier: int
    timeline: int
    sha256: str
    """Of the content, not of its compressed form."""
    size_bytes: int
    stored_size_bytes: int
    collected_at: str
    schema_version: int = SCHEMA_VERSION


class WalArchive:
    """The archive of one cluster's log below `root`, where other clusters can have theirs too."""

    def __init__(self, root: Path, system_identifier: int) -> None:
        self.root = root
        self.system_identifier = system_identifier

    @property
    def directory(self) -> Path:
        return self.root / str(self.system_identifier)

    def file_path(self, name: WalName) -> Path:
        return self.directory / f"{name.timeline:08X}" / (name.name + FILE_SUFFIX)

    def record_path(self, name: WalName) -> Path:
        return self.file_path(name).with_suffix(RECORD_SUFFIX)

    def store(self, name: WalName, content: bytes) -> Outcome:
        """Put `content` into the archive once it has been checked. What is there already and the same is success.

        Raises BadWalFile, ArchiveConflict when the archive has other content under this name, ArchiveFull.
        """
        self.prove(name, content)
        path = self.file_path(name)
        with _explained(f"{name.name} could not be stored in {self.root}"):
            if path.exists():
                return self._settle(name, content)
            make_directories(path.parent)
            compressed = igzip.compress(content, COMPRESSION_LEVEL, mtime=0)
            with _written(path, compressed) as partial:
                try:
                    path.hardlink_to(partial)
                except FileExistsError:
                    return self._settle(name, content)
            self._record(name, content, len(compressed))
        return Outcome.STORED

    def prove(self, name: WalName, content: bytes) -> None:
        """Is `content` the file `name` of this cluster, by itself and by its timeline's history? Raises BadWalFile."""
        header = check_content(name, content, self.system_identifier)
        if header and header.timeline != name.timeline:
            self._check_origin(name, header)

    def _check_origin(self, name: WalName, header: SegmentHeader) -> None:
        """Only the segment in which a timeline began starts with pages of another. Its history is archived first."""
        history = parse_wal_name(history_name(name.timeline))
        assert history is not None
        try:
            origin = parse_history(history.name, self.fetch(history))[-1].position
        except ArchiveError as error:
            raise BadWalFile(
                f"{name.name} begins on timeline {header.timeline}, and its history cannot be asked whether timeline"
                f" {name.timeline} began in it: {error}"
            ) from error
        if origin // header.segment_size_bytes != name.segment_number(header.segment_size_bytes):
            raise BadWalFile(
                f"{name.name} begins on timeline {header.timeline}, but timeline {name.timeline} did not begin in it"
            )

    def _settle(self, name: WalName, content: bytes) -> Outcome:
        """Something has the name: the same content is success, and mends a damaged file; other content is refused."""
        path, sha256 = self.file_path(name), hashlib.sha256(content).hexdigest()
        record = self.record(name)
        try:
            known = hashlib.sha256(self._read(name, record)).hexdigest()
        except ArchiveDamaged:
            if record is None or record.sha256 != sha256:
                raise
            compressed = igzip.compress(content, COMPRESSION_LEVEL, mtime=0)
            with _written(path, compressed) as partial:
                partial.replace(path)
            record, known = None, sha256
        if known != sha256:
            raise ArchiveConflict(
                f"{path} holds other content (SHA-256 {known}) than what is to be stored as {name.name} ({sha256})."
                " Two servers write to one archive, or one was restored and kept its archiving on: stop the wrong one."
                " Neither file was changed"
            )
        if record is None:
            self._record(name, content, path.stat().st_size)
        fsync(path.parent)  # whoever stored it may have died before
        return Outcome.ALREADY_THERE

    def _record(self, name: WalName, content: bytes, stored_size_bytes: int) -> None:
        record = WalRecord(
            name=name.name,
            system_identifier=self.system_identifier,
            timeline=name.timeline,
            sha256=hashlib.sha256(content).hexdigest(),
            size_bytes=len(content),
            stored_size_bytes=stored_size_bytes,
            collected_at=datetime.now(UTC).isoformat(),
        )
        path = self.record_path(name)
        with _written(path, json.dumps(record._asdict()).encode() + b"\n") as partial:
            partial.replace(path)
        fsync(path.parent)

    def record(self, name: WalName) -> WalRecord | None:
        """The inventory's entry; None when there is none. Raises ArchiveDamaged."""
        path = self.record_path(name)
        try:
            entry = json.loads(path.read_bytes())
            if entry["schema_version"] > SCHEMA_VERSION:
                raise ArchiveError(f"{path} has schema version {entry['schema_version']}: use a newer asset-depot")
            record = WalRecord(**entry)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ArchiveError(f"{path} could not be read: {error}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ArchiveDamaged(f"{path} is damaged: {error}") from error
        if (record.name, record.system_identifier) != (name.name, self.system_identifier):
            raise ArchiveDamaged(f"{path} is the record of {record.name} of the cluster {record.system_identifier}")
        return record

    def fetch(self, name: WalName) -> bytes:
        """The content, proved to be what was stored.

        Raises NotArchived only when the archive answers and has neither the file nor a record of it; ArchiveDamaged.
        """
        record = self.record(name)
        try:
            return self._read(name, record)
        except FileNotFoundError:
            self._prove_absent(name, record)
            raise NotArchived(f"{name.name} is not in {self.directory}") from None
        except OSError as error:
            raise ArchiveError(f"{self.file_path(name)} could not be read: {error}") from error

    def _prove_absent(self, name: WalName, record: WalRecord | None) -> None:
        if record is not None:
            raise ArchiveDamaged(f"{self.file_path(name)} is gone; its record is still there")
        if not self.directory.is_dir():
            raise ArchiveError(
                f"there is no archive of the cluster {self.system_identifier} in {self.root}: is it mounted?"
            )

    def _read(self, name: WalName, record: WalRecord | None) -> bytes:
        path = self.file_path(name)
        compressed = path.read_bytes()
        try:
            content = isal_zlib.decompress(compressed, wbits=GZIP, bufsize=DEFAULT_SEGMENT_SIZE_BYTES)
            if record is None:  # its writer was killed: gzip's own checksum and the pages must do
                check_content(name, content, self.system_identifier)
        except DecompressionError as error:
            raise ArchiveDamaged(f"{path} cannot be decompressed: {error}") from error
        except BadWalFile as error:
            raise ArchiveDamaged(f"{path} is damaged: {error}") from error
        if record is not None and hashlib.sha256(content).hexdigest() != record.sha256:
            raise ArchiveDamaged(f"{path} has not the SHA-256 with which it was stored, {record.sha256}")
        return content

    def names(self) -> list[WalName]:
        """Every file that the inventory or the directory knows, by timeline and then name. Raises ArchiveError."""
        with _explained(f"{self.directory} could not be listed"):
            found = {
                path.name.removesuffix(FILE_SUFFIX).removesuffix(RECORD_SUFFIX)
                for timeline in self.directory.iterdir()
                if timeline.is_dir()
                for path in timeline.iterdir()
                if path.suffix in (FILE_SUFFIX, RECORD_SUFFIX)
            }
        return [name for text in sorted(found) if (name := parse_wal_name(text))]

    def remove_debris(self) -> None:
        """Remove what writers left that were killed long ago."""
        remove_debris(self.directory.glob(f"*/{PARTIAL_PREFIX}*"))


def archived_systems(root: Path) -> list[int]:
    """The clusters that have an archive below `root`. Raises OSError when it cannot be read."""
    return sorted(int(path.name) for path in root.iterdir() if path.name.isdecimal() and path.is_dir())


def open_archive(root: Path, system_identifier: int | None = None) -> WalArchive:
    """The archive of the cluster, or of the only one that has an archive in `root`. Raises ArchiveError."""
    try:
        systems = archived_systems(root)
    except FileNotFoundError:
        raise ArchiveError(f"there is no archive at {root}: is it mounted, and is this its name?") from None
    except OSError as error:
        raise ArchiveError(f"the archive {root} could not be read: {error}") from error
    if system_identifier is None and not systems:
        raise ArchiveError(f"{root} has the log of no cluster yet: is archiving on, and the collector running?")
    if system_identifier is None and len(systems) != 1:
        seen = ", ".join(map(str, systems))
        raise ArchiveError(f"{root} has the logs of these clusters: {seen}. Say which with --system-identifier")
    return WalArchive(root, system_identifier or systems[0])


@contextmanager
def _written(final: Path, content: bytes) -> Iterator[Path]:
    """`content` under a name of its own beside `final`, flushed; gone after the block unless it was moved."""
    partial = partial_of(final)
    try:
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield partial
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ArchiveFull(f"{what}: no room is left. Free some or give the archive a larger disk") from error
        raise ArchiveError(f"{what}: {error}") from error
