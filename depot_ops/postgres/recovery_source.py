"""Where a recovery finds its backups and its log: here, or at the place where a copy of them is."""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from depot_ops.copies.holdings import Holdings, look
from depot_ops.places import Place, PlaceDamaged, PlaceError, PlaceMissing
from depot_ops.postgres.base_record import BaseBackup, find_base_backups, kept_for_reading, load_base_backup
from depot_ops.postgres.wal.archive import ArchiveDamaged, ArchiveError, NotArchived, WalArchive, WalRecord
from depot_ops.postgres.wal.collector import spooled
from depot_ops.postgres.wal.content import HEADER_BYTES, BadWalFile, check_owner, read_header
from depot_ops.postgres.wal.names import WalKind, WalName


@dataclass(frozen=True, slots=True)
class RecoverySource:
    """Backups and log that lie here."""

    backup_dir: Path
    archive: WalArchive

    def kept(self) -> AbstractContextManager[None]:
        """Nothing of what lies here is deleted within the block."""
        return kept_for_reading(self.backup_dir)

    def bring(self, backup: BaseBackup) -> None:
        """Make the files of `backup` lie where its record says. They do."""

    def staging_bytes(self, chain: Iterable[BaseBackup]) -> int:
        """Disk that bringing these takes."""
        return 0


@dataclass(frozen=True, slots=True)
class CopiedSource(RecoverySource):
    """Backups and log at a place, of which only what is needed is fetched."""

    holdings: Holdings

    def kept(self) -> AbstractContextManager[None]:
        return nullcontext()  # what is fetched is ours alone

    def bring(self, backup: BaseBackup) -> None:
        for path in (backup.manifest, backup.archive):
            if not path.exists():
                self.holdings.fetch(self.holdings.key_of(path))

    def staging_bytes(self, chain: Iterable[BaseBackup]) -> int:
        return sum(element.record.stored_size_bytes for element in chain)


class SpooledArchive(WalArchive):
    """An archive with what still waits for its collector, which is only read, and proved as the collector would."""

    def __init__(self, archive: WalArchive, spool: Path) -> None:
        super().__init__(archive.root, archive.system_identifier)
        self._archive = archive
        self._spool = spool
        self.taken: set[str] = set()
        """What was fetched from the spool."""

    def names(self) -> list[WalName]:
        waiting = [name for name in spooled(self._spool) if self._counts(name)]  # before the archive, which gets them
        return sorted({*self._archive.names(), *waiting}, key=lambda name: name.name)

    def _counts(self, name: WalName) -> bool:
        """A segment of another cluster, far ahead of ours, would have a recovery look for all the log between."""
        if name.kind is not WalKind.SEGMENT:
            return name.kind is WalKind.HISTORY
        try:
            with self._named(name), (self._spool / name.name).open("rb") as file:
                check_owner(name, read_header(name.name, file.read(HEADER_BYTES)), self.system_identifier)
        except FileNotFoundError:
            return False  # it was collected just now: the archive has it
        return True

    def record(self, name: WalName) -> WalRecord | None:
        return self._archive.record(name)

    def fetch(self, name: WalName) -> bytes:
        try:
            return self._archive.fetch(name)
        except NotArchived:
            path = self._spool / name.name
        try:
            with self._named(name):
                content = path.read_bytes()
                self.prove(name, content)
        except FileNotFoundError:
            return self._archive.fetch(name)  # it was collected just now
        self.taken.add(name.name)
        return content

    @contextmanager
    def _named(self, name: WalName) -> Iterator[None]:
        try:
            yield
        except BadWalFile as error:
            raise ArchiveDamaged(
                f"{self._spool / name.name} waits to be collected, and is not what it should be: {error}. To do"
                " without all that waits there, set WAL_SPOOL_DIR to nothing"
            ) from error


class CopiedArchive(WalArchive):
    """The copy of an archive. A file is fetched when it is asked for, proved as any other, and not kept."""

    def __init__(self, holdings: Holdings, system_identifier: int) -> None:
        super().__init__(holdings.archive_root, system_identifier)
        self.directory.mkdir(exist_ok=True)
        self._holdings = holdings

    def names(self) -> list[WalName]:
        return self._holdings.log(self.system_identifier)

    def record(self, name: WalName) -> WalRecord | None:
        self._bring(self.record_path(name))
        return super().record(name)

    def fetch(self, name: WalName) -> bytes:
        path = self.file_path(name)
        self._bring(path)
        try:
            return super().fetch(name)
        finally:
            path.unlink(missing_ok=True)

    def _bring(self, path: Path) -> None:
        key = self._holdings.key_of(path)
        if key not in self._holdings.sizes or path.exists():
            return
        try:
            self._holdings.fetch(key)
        except (PlaceDamaged, PlaceMissing) as error:
            raise ArchiveDamaged(str(error)) from error
        except PlaceError as error:
            raise ArchiveError(str(error)) from error


def open_copy(place: Place, staging: Path, system_identifier: int | None) -> CopiedSource:
    """The copy at `place`, staged into the new directory `staging`. Raises PlaceError, ArchiveError.

    Backups that are not whole there are left out, and while there is another so are those whose own log is still on its
    way: an older one leads to the same moment, with more log.
    """
    holdings = look(place, staging)
    systems = holdings.systems()
    if system_identifier is None and len(systems) != 1:
        seen = ", ".join(map(str, systems)) or "none"
        raise ArchiveError(f"{place} has the logs of these clusters: {seen}. Say which with --system-identifier")
    system = system_identifier or systems[0]
    holdings.fetch_base_records()
    found = find_base_backups(holdings.backup_dir, system)
    problems = {path: problem for path in found if (problem := holdings.problem_of_base(path))}
    whole = [path for path in found if path not in problems]
    if not whole:
        told = "; ".join(problems.values()) or "there is none"
        raise ArchiveError(f"no base backup of the cluster {system} at {place} can be restored: {told}")
    with_log = [path for path in whole if holdings.has_log_of(load_base_backup(path).record)]
    for path in set(found) - set(with_log or whole):
        shutil.rmtree(path)
    return CopiedSource(holdings.backup_dir, CopiedArchive(holdings, system), holdings)
