"""Segments that a recovery will ask for next, fetched from the archive while it replays the one before.

They wait in a spool of their own, each proved before it gets its name there and again when it leaves it. The spool only
ever saves time: what it lacks is fetched directly, and that the archive lacks something is never taken from it.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from depot_ops.durable import fsync
from depot_ops.postgres.wal.archive import ArchiveError, NotArchived, WalArchive
from depot_ops.postgres.wal.names import (
    WalName,
    parse_wal_name,
    segment_name,
)

AHEAD_SEGMENTS = 8
LOCK_NAME = ".lock"


def ready_path(spool: Path, system_identifier: int, name: WalName) -> Path:
    """Where a prefetched file lies, once it is whole."""
    return spool / str(system_identifier) / name.name


def take(name: WalName, archive: WalArchive, spool: Path, destination: Path) -> bool:
    """Move a prefetched file to its destination. False when it is not there, or no longer what the archive stored."""
    ready = ready_path(spool, archive.system_identifier, name)
    record = archive.record(name)
    try:
        if record is None or hashlib.sha256(ready.read_bytes()).hexdigest() != record.sha256:
            ready.unlink()
            return False
        shutil.move(ready, destination)
    except FileNotFoundError:
        return False
    return True


def start(name: WalName, archive: WalArchive, spool: Path) -> None:
    """Fetch what follows `name` in a process of its own, unless half of it is there already."""
    following = _following(name, archive, AHEAD_SEGMENTS // 2)
    if not following or ready_path(spool, archive.system_identifier, following[-1]).exists():
        return
    subprocess.Popen(
        [sys.executable, "-m", __name__, name.name, archive.root, str(archive.system_identifier), spool],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    )


def prefetch(name: WalName, archive: WalArchive, spool: Path) -> None:
    """Fetch the segments behind `name` as far as the archive has them, and drop those that nobody asks for any more."""
    directory = spool / str(archive.system_identifier)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(directory) as alone:
        if not alone:
            return
        wanted = _following(name, archive, AHEAD_SEGMENTS)
        for path in directory.iterdir():
            if path.name != LOCK_NAME and path.name not in {one.name for one in wanted}:
                path.unlink(missing_ok=True)
        for one in wanted:
            final = directory / one.name
            if final.exists():
                continue
            try:
                content = archive.fetch(one)
            except NotArchived:
                return
            partial = directory / f".partial-{one.name}"
            partial.write_bytes(content)
            partial.chmod(0o600)
            fsync(partial)
            partial.replace(final)


@contextmanager
def _alone(directory: Path) -> Iterator[bool]:
    """Whether no other prefetch works there; the lock goes with its process, however that ends."""
    with (directory / LOCK_NAME).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _following(name: WalName, archive: WalArchive, count: int) -> list[WalName]:
    """The segments behind `name`; none when it is no segment, or the archive does not say how large one is."""
    record = archive.record(name) if name.is_whole_segment else None
    if record is None:
        return []
    size = record.size_bytes
    number = name.segment_number(size)
    names = (segment_name(name.timeline, number + ahead, size) for ahead in range(1, count + 1))
    return [parsed for text in names if (parsed := parse_wal_name(text))]


def main() -> None:
    """`python -m depot_ops.postgres.wal.prefetch NAME ARCHIVE SYSTEM SPOOL`, which `wal get` starts."""
    name, root, system, spool = sys.argv[1:]
    known = parse_wal_name(name)
    assert known is not None
    try:
        prefetch(known, WalArchive(Path(root), int(system)), Path(spool))
    except (ArchiveError, OSError) as error:
        # The get that needs the segment meets the same error, and tells the server.
        sys.exit(str(error))


if __name__ == "__main__":
    main()
