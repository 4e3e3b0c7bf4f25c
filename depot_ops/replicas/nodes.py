"""The servers that replicate each other, as a directory on the operations host keeps them.

Which of them is the primary is never written down: it is asked, because it changes when nobody is looking.
"""

import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from depot_ops.durable import write_private
from depot_ops.exclusive import exclusively

# Also the name of a slot and of a role, each with a prefix: both allow 63 bytes.
NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
HERE = "127.0.0.1"
FAILOVER_RECORD = ".failover"


def only_at(url: str, host: str, port: int) -> str:
    """The address `url`, at this server only, whatever its role is now. Raises psycopg.ProgrammingError."""
    address = {**conninfo_to_dict(url), "host": host, "port": port, "target_session_attrs": "any"}
    address.pop("hostaddr", None)
    return make_conninfo("", **address)


class ReplicaError(Exception):
    """What was asked for was not done; the message says what was seen and what to do."""


class ReplicaBusy(ReplicaError):
    """Another operation on the nodes of this directory runs."""


class Node(BaseModel):
    """One server, primary or standby. All that are made here are on this host; a primary may be elsewhere."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
    data: Path
    port: Annotated[int, Field(ge=1, le=65535)]
    host: str = HERE
    listen_addresses: str = "127.0.0.1"
    socket_directories: str | None = None
    """Where a server that was not made here has them; otherwise beside the data."""
    supervised: bool = False
    """Whether `depot-ops up` starts it again when it ends; otherwise it runs by itself, as pg_ctl starts servers."""

    @property
    def is_remote(self) -> bool:
        """Its processes and files cannot be reached: it is fenced by a command, and not rewound from here."""
        return self.host != HERE

    @property
    def slot(self) -> str:
        return f"depot_{self.name}"

    @property
    def role(self) -> str:
        """As which it streams: a role of its own, so that taking a node away takes its password away too."""
        return f"depot_replica_{self.name}"

    def conninfo(self, url: str) -> str:
        """The address `url`, at this node only, whatever its role is now."""
        return only_at(url, self.host, self.port)


@dataclass(frozen=True, slots=True)
class Nodes:
    """The directory of the nodes: a record of each, its log and password file, and the data of those made here."""

    directory: Path

    def prepare(self) -> None:
        # The servers' account passes through to its own files, and lists nothing.
        self.directory.mkdir(mode=0o711, parents=True, exist_ok=True)

    def all(self) -> list[Node]:
        """By name. Raises ReplicaError when a record cannot be read: a node must not be forgotten silently."""
        return [self._read(path) for path in sorted(self.directory.glob("*.json"))]

    def get(self, name: str) -> Node:
        path = self._path(name)
        if not path.exists():
            known = ", ".join(node.name for node in self.all()) or "none"
            raise ReplicaError(f"{self.directory} has no node {name}; it has: {known}")
        return self._read(path)

    def has(self, name: str) -> bool:
        return self._path(name).exists()

    def save(self, node: Node) -> None:
        write_private(self._path(node.name), node.model_dump_json(indent=2))

    def forget(self, node: Node) -> None:
        for path in (self._path(node.name), self.passfile(node), self.log(node), self.half_rewound(node)):
            path.unlink(missing_ok=True)

    def home(self, name: str) -> Path:
        """Where the data of a node is put that is made here. Raises ReplicaError when that is no name."""
        return self._path(name).with_suffix("")

    def passfile(self, node: Node) -> Path:
        return self.directory / f"{node.name}.pgpass"

    def log(self, node: Node) -> Path:
        return self.directory / f"{node.name}.log"

    def half_rewound(self, node: Node) -> Path:
        """There while its directory is no standby's, and for ever after that failed: only a rebuild helps then."""
        return self.directory / f"{node.name}.rewinding"

    def is_half_rewound(self, name: str) -> bool:
        """Nobody may start or promote it."""
        return (self.directory / f"{name}.rewinding").exists()

    def _path(self, name: str) -> Path:
        if not NAME.fullmatch(name):
            raise ReplicaError(f"{name!r} names no node: take up to 40 of a-z, 0-9 and _, the first a letter")
        return self.directory / f"{name}.json"

    def _read(self, path: Path) -> Node:
        try:
            return Node.model_validate_json(path.read_text())
        except (OSError, ValidationError) as error:
            raise ReplicaError(f"{path} is no record of a node: {error}") from error

    def locked(self) -> AbstractContextManager[int]:
        """One operation at a time: two that promote or rewind at once would each destroy what the other relies on."""
        return self._lock(".lock", 0.0, f"another operation on the nodes in {self.directory} runs: wait for its end")

    def held(self, name: str, wait_seconds: float = 0.0) -> AbstractContextManager[int]:
        """While it is held, no supervisor starts the node: its directory is being changed."""
        return self._lock(f"{name}.hold", wait_seconds, f"{name} is being changed by another operation: wait")

    def tended(self, wait_seconds: float) -> AbstractContextManager[int]:
        """While the primary is told whom to wait for. Not `locked`: a primary that hangs must hold up no failover."""
        return self._lock(".tending.lock", wait_seconds, "the synchronous mode is being changed: try again")

    def _lock(self, name: str, wait_seconds: float, otherwise: str) -> AbstractContextManager[int]:
        self.prepare()
        return exclusively(self.directory / name, ReplicaBusy(otherwise), wait_seconds=wait_seconds)
