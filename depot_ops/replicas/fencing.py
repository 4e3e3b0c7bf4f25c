"""Making sure that a server takes no more writes, and knowing how far it had got."""

import re
from dataclasses import dataclass

from depot_ops.postgres.wal.names import format_lsn, parse_lsn
from depot_ops.replicas.nodes import ReplicaError
from depot_ops.replicas.server import STANDBY_SIGNAL, Control, Server, ShutdownMode

_RECORD = re.compile(r"len \(rec/tot\):\s*\d+/\s*(\d+).*lsn: ([0-9A-F]+/[0-9A-F]+)")


class CannotFence(ReplicaError):
    """Nobody has proved that the server takes no writes."""


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

    def end_of_log(self, start: int) -> int:
        """Where its log ends, looked for from `start` on record by record; `start` when it has nothing behind that."""
        options = (f"--path={self.server.data / 'pg_wal'}", f"--timeline={self.control.timeline}")
        last = None
        with self.server.reading("pg_waldump", *options, f"--start={format_lsn(start)}") as lines:
            for line in lines:
                last = _RECORD.search(line) or last
        return parse_lsn(last[2]) + int(last[1]) if last else start


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
