"""What a lost primary had and nobody else has: kept as evidence before a rewind destroys it."""

import hashlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from depot_ops.durable import fsync
from depot_ops.postgres.wal.archive import ArchiveError, WalArchive
from depot_ops.postgres.wal.content import BadWalFile
from depot_ops.postgres.wal.names import WalName, format_lsn
from depot_ops.replicas.fencing import Fenced, Unmeasured
from depot_ops.replicas.nodes import ReplicaError
from depot_ops.replicas.server import Server


class Tail(BaseModel):
    """What became of the end of one node's log."""

    model_config = ConfigDict(frozen=True)

    node: str
    end_lsn: str | None = None
    kept: dict[str, str] = {}
    """Segments with what the new primary never got, and their SHA-256; in `directory`."""
    directory: Path | None = None
    archived: tuple[str, ...] = ()
    """What its archiver had not yet got to before the fork: without them the archive would have a gap."""
    problem: str | None = None


def keep_tail(server: Server, fork: int, system_identifier: int, directory: Path, archive: Path | None) -> Tail:
    """Copy what lies behind `fork` into `directory`, and hand what lies before it to the archive. Never raises.

    The depot works again already: what stands in the way is told, and undoes nothing.
    """
    tail = Tail(node=server.node.name)
    try:
        control = server.control()
        fenced = Fenced(server, control)
        segments = fenced.segments()
        end, told = _end_of(fenced, fork)
        first = fork // control.segment_size_bytes
        # Where nobody knows the end, everything may be behind the fork.
        behind = max(segments, default=0) + 1 if end is None else -(-end // control.segment_size_bytes)
        log = server.data / "pg_wal"
        lost = [segments[number].name for number in sorted(segments) if end != fork and first <= number < behind]
        tail = tail.model_copy(update=told)
        if lost:
            tail = tail.model_copy(update={"kept": _copied(log, lost, directory), "directory": directory})
        waiting = [name for number, name in segments.items() if number < first and _is_waiting(log, name)]
        if archive is not None:
            store = WalArchive(archive, system_identifier)
            for name in waiting:
                store.store(name, (log / name.name).read_bytes())
            tail = tail.model_copy(update={"archived": tuple(sorted(name.name for name in waiting))})
    except (ReplicaError, ArchiveError, BadWalFile, OSError) as error:
        return tail.model_copy(update={"problem": str(error)})
    return tail


def _end_of(fenced: Fenced, fork: int) -> tuple[int | None, dict[str, str]]:
    try:
        end = fenced.end_of_log(fork)
    except Unmeasured as error:
        return None, {
            "problem": f"where its log ends could not be read, so everything from the fork on is kept: {error}"
        }
    return end, {"end_lsn": format_lsn(end)}


def _is_waiting(log: Path, name: WalName) -> bool:
    return (log / "archive_status" / f"{name.name}.ready").exists()


def _copied(log: Path, names: list[str], directory: Path) -> dict[str, str]:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    kept = {}
    for name in names:
        content = (log / name).read_bytes()
        target = directory / name
        target.touch(mode=0o600)
        target.write_bytes(content)
        fsync(target)
        kept[name] = hashlib.sha256(content).hexdigest()
    fsync(directory)
    return kept
