"""Collecting the log: from the spool that basic_archive fills into the archive, and only then off the spool."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from depot_ops.exclusive import exclusively
from depot_ops.postgres.wal.archive import ArchiveError, Outcome, WalArchive, archived_systems
from depot_ops.postgres.wal.content import HEADER_BYTES, BadWalFile, read_header
from depot_ops.postgres.wal.names import WalKind, WalName, parse_wal_name

# Reading, hashing, compressing and flushing release the interpreter: two keep two cores and a disk busy.
WORKERS = 2
LOCK_NAME = ".collect.lock"


class CollectError(Exception):
    """Nothing can be collected; the message says why and what to do."""


class CollectorRunning(CollectError):
    """Another collector works on the same spool."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A file that stays in the spool, and why."""

    name: str
    reason: str


@dataclass(slots=True)
class Collected:
    """What one pass over the spool came to."""

    stored: list[str] = field(default_factory=list)
    already_there: list[str] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    collected_bytes: int = 0


def collect(
    spool: Path, archive_root: Path, system_identifier: int | None = None, *, streamed: bool = False
) -> Collected:
    """One pass: move every finished file of `spool` into the archive. Safe to be killed, and to be run again.

    A file that is not what its name says, or that the archive has with other content, stays where it is and is
    reported; the others go on. `system_identifier` None means the one cluster that the archive has, or the first that
    it gets. `streamed` is for what pg_receivewal fills: it still writes its `.partial`. Raises CollectError.
    """
    try:
        with _sole_collector(spool):
            names = [name for name in spooled(spool) if not (streamed and name.kind is WalKind.PARTIAL)]
            if not names:
                return Collected()
            system = system_identifier or _known_system(archive_root) or _system_in(spool, names)
            archive = WalArchive(archive_root, system)
            archive.remove_debris()
            return _collect(spool, names, archive)
    except OSError as error:
        raise CollectError(f"{spool} could not be collected: {error}") from error


def spooled(spool: Path) -> list[WalName]:
    """The finished files in `spool`: histories first, so that no timeline is archived before its origin."""
    names = [name for path in spool.iterdir() if (name := parse_wal_name(path.name))]
    return sorted(names, key=lambda name: (name.kind is not WalKind.HISTORY, name.name[8:], name.name))


def _collect(spool: Path, names: list[WalName], archive: WalArchive) -> Collected:
    collected = Collected()

    def move(name: WalName) -> tuple[Outcome, int] | Refusal:
        path = spool / name.name
        try:
            content = path.read_bytes()
            outcome = archive.store(name, content)
        except (BadWalFile, ArchiveError) as error:
            return Refusal(name.name, str(error))
        path.unlink()
        return outcome, len(content)

    # The archive asks a timeline's history about its first segment: histories are there before any segment.
    histories = [name for name in names if name.kind is WalKind.HISTORY]
    others = names[len(histories) :]
    with ThreadPoolExecutor(WORKERS) as pool:
        results = [*map(move, histories), *pool.map(move, others)]
        for name, result in zip(names, results, strict=True):
            if isinstance(result, Refusal):
                collected.refused.append(result)
                continue
            outcome, size_bytes = result
            collected.collected_bytes += size_bytes
            moved = collected.stored if outcome is Outcome.STORED else collected.already_there
            moved.append(name.name)
    return collected


def _known_system(archive_root: Path) -> int | None:
    if not archive_root.is_dir():
        return None
    known = archived_systems(archive_root)
    if len(known) > 1:
        raise CollectError(
            f"{archive_root} has the logs of {len(known)} clusters ({', '.join(map(str, known))}): say with"
            " --system-identifier whose spool this is"
        )
    return known[0] if known else None


def _system_in(spool: Path, names: list[WalName]) -> int:
    """The cluster that filled a spool whose archive is still empty."""
    for name in names:
        if name.kind not in (WalKind.SEGMENT, WalKind.PARTIAL):
            continue
        with (spool / name.name).open("rb") as file:
            try:
                return read_header(name.name, file.read(HEADER_BYTES)).system_identifier
            except BadWalFile:
                continue
    raise CollectError(
        f"no segment in {spool} says which cluster it is of, and the archive is empty: pass --system-identifier"
    )


@contextmanager
def _sole_collector(spool: Path) -> Iterator[None]:
    refusal = CollectorRunning(f"another collector works on {spool}: leave it to that one")
    with exclusively(spool / LOCK_NAME, refusal):
        yield
