"""What lies there is read again, a share each day, so that all of it is within a fortnight: disks forget silently.

Which share something is in, its name says: nothing is kept of it, and what was deleted or came since changes no other.
"""

from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from pathlib import Path
from zlib import crc32

from depot_ops.copies.holdings import Holdings
from depot_ops.copies.proofs import verify_copy
from depot_ops.evidence import Finding, Status
from depot_ops.postgres.base_backup import VERIFIED, verify_base_backup
from depot_ops.postgres.base_record import BaseRecordUnusable, find_base_backups, load_base_backup
from depot_ops.postgres.binaries import Binaries
from depot_ops.postgres.dump_checks import DumpCheck, verify
from depot_ops.postgres.dump_record import find_backups
from depot_ops.postgres.wal.archive import WalArchive, archived_systems
from depot_ops.postgres.wal.inventory import check_intact

SHARES = 14


def share_of(day: date) -> int:
    """The share whose turn it is."""
    return day.toordinal() % SHARES


def is_in(share: int, name: str) -> bool:
    """Is what has this name read with that share?"""
    return crc32(name.encode()) % SHARES == share


def verify_share(
    backup_dir: Path, archive_root: Path | None, binaries: Binaries, share: int, say: Callable[[str], None]
) -> Iterator[Finding]:
    """Read the dumps, base backups and log of this share, and compare their hashes. Raises OSError, ArchiveError."""
    for dump in find_backups(backup_dir):
        if is_in(share, dump.name):
            say(f"reading {dump.name}")
            yield from verify(dump, binaries, [DumpCheck.CHECKSUM])
    for path in find_base_backups(backup_dir):
        if is_in(share, path.name):
            say(f"reading {path.name}")
            yield _verify_base(path, binaries)
    if archive_root is None:
        return
    for system in archived_systems(archive_root):
        say(f"reading the log of {system}")
        yield check_intact(WalArchive(archive_root, system), deep=True, chosen=partial(is_in, share))


def verify_share_of_copy(holdings: Holdings, share: int) -> Iterator[Finding]:
    """As `verify_share`, of what the second place holds. Raises PlaceError."""
    yield from verify_copy(holdings, partial(is_in, share))


def _verify_base(path: Path, binaries: Binaries) -> Finding:
    try:
        return verify_base_backup(load_base_backup(path), binaries)
    except BaseRecordUnusable as error:
        return Finding(check=VERIFIED, status=Status.UNHEALTHY, detail=str(error), figures={"file": path.name})
