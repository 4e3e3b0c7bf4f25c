"""Making sure that a server takes no more writes, and knowing how far it had got."""

import re
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass

from depot_ops.postgres.wal.names import WalName, format_lsn, parse_lsn, parse_wal_name
from depot_ops.replicas.create import Place
from depot_ops.replicas.loss import Answer, ask
from depot_ops.replicas.nodes import Node, ReplicaError
from depot_ops.replicas.server import STANDBY_SIGNAL, Control, Server, ShutdownMode

SILENCED_SECONDS = 5.0
POLL_SECONDS = 0.2
# More than a primary sends at once: what a standby has may end within a record, which began before that.
LOOK_BACK_BYTES = 256 << 10
# Of the log, as servers are built.
PAGE_BYTES, HEADER_BYTES, FIRST_HEADER_BYTES, ALIGNMENT_BYTES = 8192, 24, 40, 8
# How pg_waldump ends where the log does. That a file cannot be found, opened or read, it says in other words.
_NO_RECORD = "error in WAL record at"
_END = re.compile(r"^end_of_log\s+([0-9A-F]+/[0-9A-F]+)\s*$", re.MULTILINE)
_RECORD = re.compile(r"len \(rec/tot\):\s*\d+/\s*(\d+).*lsn: ([0-9A-F]+/[0-9A-F]+)")


class CannotFence(ReplicaError):
    """Nobody has proved that the server takes no writes."""


class Unmeasured(ReplicaError):
    """Nobody can tell where a log ends; the message says why."""


@dataclass(frozen=True, slots=True)
class Fenced:
    """A server that is proved to be stopped, and read-only when somebody starts it."""

    server: Server
    control: Control

    @property
    def system_identifier(self) -> int:
        return self.control.system_identifier

    @property
    def proof(self) -> str:
        return f"no process of it is left ({self.control.state}), and {STANDBY_SIGNAL} makes every start read-only"

    def segments(self) -> dict[int, WalName]:
        """Of the newest timeline that it has written, by number: the control file tells of one only after a checkpoint.

        Raises OSError when its log cannot be read.
        """
        names = [name for path in (self.server.data / "pg_wal").iterdir() if (name := parse_wal_name(path.name))]
        whole = [name for name in names if name.is_whole_segment]
        newest = max((name.timeline for name in whole), default=self.control.timeline)
        size = self.control.segment_size_bytes
        return {name.segment_number(size): name for name in whole if name.timeline == newest}

    def end_of_log(self, start: int) -> int:
        """Where its log ends, or `start` when it has nothing behind that. Raises Unmeasured.

        Looked for from somewhat before `start`, where a record has to be found: no record at all proves nothing.
        """
        size = self.control.segment_size_bytes
        try:
            segments = self.segments()
        except OSError as error:
            raise Unmeasured(f"its log cannot be read: {error}") from error
        # Not only in the segment of `start`: what it ends in may have begun in the one before.
        first = max(start - LOOK_BACK_BYTES, 0) // size
        while first not in segments and first < start // size:
            first += 1
        behind = max(segments, default=0) + 1
        missing = [number for number in range(first, max(behind, first + 1)) if number not in segments]
        if missing:
            raise Unmeasured(f"the segment that begins at {format_lsn(missing[0] * size)} is not there")
        # Where the server went on to the next segment early, the end of the one before is empty.
        for begin in (max(start - LOOK_BACK_BYTES, first * size), start // size * size):
            with suppress(Unmeasured):
                end = self._end_of_records(begin, behind * size, segments[first])
                break
        else:
            end = self._end_of_records(first * size, behind * size, segments[first])
        if end < self.control.checkpoint_lsn:
            # What a checkpoint wrote was on disk before the control file told of it.
            checkpoint = format_lsn(self.control.checkpoint_lsn)
            raise Unmeasured(f"it can be read to {format_lsn(end)} only, and its last checkpoint is at {checkpoint}")
        return max(start, end)

    def _end_of_records(self, begin: int, behind: int, first: WalName) -> int:
        """Raises Unmeasured when there is none, and when something else ends the reading than what is no record."""
        options = [f"--path={self.server.data / 'pg_wal'}", f"--timeline={first.timeline}"]
        options += [f"--start={format_lsn(begin)}", f"--end={format_lsn(behind)}"]
        last = None
        with self.server.reading("pg_waldump", *options) as (lines, complaints):
            for line in lines:
                last = _RECORD.search(line) or last
            said = complaints.read().strip()
        if last is None or (said and _NO_RECORD not in said):
            raise Unmeasured(f"reading it from {format_lsn(begin)} ends with: {said or 'no record'}")
        return end_of_record(parse_lsn(last[2]), int(last[1]), self.control.segment_size_bytes)


def end_of_record(start: int, size_bytes: int, segment_size_bytes: int) -> int:
    """Where the next record would begin: every page that this one goes on into has a header, which is not counted."""
    end, left = start, size_bytes
    while left > (room := PAGE_BYTES - end % PAGE_BYTES):
        left, end = left - room, end + room
        end += FIRST_HEADER_BYTES if end % segment_size_bytes == 0 else HEADER_BYTES
    return -(-(end + left) // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def fence(server: Server, mode: ShutdownMode = ShutdownMode.FAST) -> Fenced:
    """Stop the server and leave it a standby. Raises CannotFence.

    The signal file comes first: whatever starts the server again at any moment, it comes back read-only.
    """
    try:
        server.stay_standby()
        server.stop(mode)
        return Fenced(server, server.control())
    except (ReplicaError, OSError) as error:
        raise CannotFence(f"{server.node.name} could not be fenced: {error}") from error


@dataclass(frozen=True, slots=True)
class FencedByCommand:
    """A server elsewhere, of which a command said that it is stopped, and which was seen to take no writes."""

    proof: str
    end: int | None
    """Where its log ends, when the command could tell."""
    system_identifier: None = None

    def end_of_log(self, start: int) -> int:
        if self.end is None:
            raise Unmeasured("the fence command printed no end_of_log")
        return max(self.end, start)


def fence_by_command(place: Place, node: Node) -> FencedByCommand:
    """Have the node stopped by FENCE_COMMAND. Raises CannotFence.

    The command has to end with 0 in time, and then the node has to be silent or read-only: neither proves it alone.
    """
    if not place.fence_command:
        raise CannotFence(f"{node.name} is on {node.host} and could not be fenced: set FENCE_COMMAND")
    known = {"name": node.name, "host": node.host, "port": str(node.port), "data": str(node.data)}
    try:
        command = [word.format_map(known) for word in place.fence_command]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=place.fence_seconds, stdin=subprocess.DEVNULL, check=False
        )
    except subprocess.TimeoutExpired:
        raise CannotFence(f"{node.name}: the fence command did not end within {place.fence_seconds:g} s") from None
    except (OSError, KeyError, ValueError, IndexError) as error:
        raise CannotFence(f"{node.name}: the fence command cannot be run: {error!r}") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()[-300:]
        raise CannotFence(f"{node.name}: the fence command failed with exit code {done.returncode}: {said}")
    answer = _silenced(place, node)
    end = _END.search(done.stdout)
    proof = f"{command[0]} ended with 0, and then it {answer}"
    return FencedByCommand(proof, parse_lsn(end[1]) if end else None)


def _silenced(place: Place, node: Node) -> Answer:
    deadline = time.monotonic() + SILENCED_SECONDS
    while (answer := ask(node.conninfo(place.url))) not in (Answer.SILENT, Answer.READ_ONLY):
        if time.monotonic() > deadline:
            raise CannotFence(f"{node.name}: the fence command ended with 0, but it {answer}")
        time.sleep(POLL_SECONDS)
    return answer
