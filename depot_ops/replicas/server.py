"""The server of one node, started and stopped with pg_ctl: it outlives whoever starts it."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO

from depot_ops.durable import fsync
from depot_ops.postgres.accounts import ServerAccount
from depot_ops.postgres.binaries import Binaries
from depot_ops.postgres.client_tools import client_environment
from depot_ops.postgres.cluster import MAX_SOCKET_DIRECTORY_BYTES
from depot_ops.postgres.wal.names import parse_lsn
from depot_ops.replicas.nodes import Node, Nodes, ReplicaError

CONFIGURATION = "depot_replica.conf"
STANDBY_SIGNAL = "standby.signal"
START_TIMEOUT_SECONDS = 60
KILL_TIMEOUT_SECONDS = 10
LEFTOVER_TIMEOUT_SECONDS = 15
POLL_SECONDS = 0.02
LOG_LINES = 3
RECENT_LOG_LINES = 20


class ShutdownMode(StrEnum):
    """Of PostgreSQL. Never smart: it waits for clients, who go on writing."""

    FAST = "fast"
    IMMEDIATE = "immediate"


STOP_TIMEOUT_SECONDS = {ShutdownMode.FAST: 30, ShutdownMode.IMMEDIATE: 2}


@dataclass(frozen=True, slots=True)
class Control:
    """What the control file says of a server that is shut down."""

    state: str
    system_identifier: int
    timeline: int
    checkpoint_lsn: int
    segment_size_bytes: int

    @property
    def is_of_standby(self) -> bool:
        """It replayed another server's log when it was last heard of; a primary says so of no state it can be in."""
        return self.state in ("in archive recovery", "shut down in recovery")

    @property
    def is_clean(self) -> bool:
        return self.state in ("shut down", "shut down in recovery")


@dataclass(frozen=True, slots=True)
class Server:
    node: Node
    nodes: Nodes
    binaries: Binaries
    account: ServerAccount

    @property
    def data(self) -> Path:
        return self.node.data

    @property
    def log(self) -> Path:
        return self.nodes.log(self.node)

    def is_running(self) -> bool:
        """Whether any process of it does, also one whose postmaster was killed."""
        return bool(self._processes())

    def bring_up(self) -> None:
        """Start it, or wait until its supervisor has, which does so as soon as nobody holds the node."""
        if not self.node.supervised:
            self.start()
            return
        wait_until(
            self.is_running, START_TIMEOUT_SECONDS, f"`depot-ops up` did not start {self.node.name}: does it run?"
        )

    def start(self) -> None:
        """Start it, and return when it takes connections, read-only ones of a standby included."""
        self.log.touch(mode=0o600)
        self.account.own(self.log)
        options = ("--wait", f"--timeout={START_TIMEOUT_SECONDS}", "--silent", f"--log={self.log}")
        deadline = time.monotonic() + LEFTOVER_TIMEOUT_SECONDS
        while self.run("pg_ctl", "start", f"--pgdata={self.data}", *options).returncode != 0:
            # A lock names the process that was killed just now, until its parent has noticed.
            if "lock file" not in self.last_words() or time.monotonic() > deadline:
                raise ReplicaError(f"PostgreSQL did not start on {self.data}: {self.last_words()}")
            time.sleep(POLL_SECONDS)

    def stop(self, mode: ShutdownMode = ShutdownMode.FAST) -> None:
        """Stop it, harder when that takes too long. Returns only when every process of it is proved to be gone."""
        for way in dict.fromkeys((mode, ShutdownMode.IMMEDIATE)):
            if not self.is_running():
                break
            timeout = f"--timeout={STOP_TIMEOUT_SECONDS[way]}"
            self.run("pg_ctl", "stop", f"--pgdata={self.data}", f"--mode={way}", "--wait", timeout, "--silent")
        # A backend that lost its postmaster still commits what it is at.
        wait_until(self._has_none_left, KILL_TIMEOUT_SECONDS, f"a process of {self.data} survives kill -9")
        # Left by a kill -9, it names a number that may be another process by now, and no server would start.
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _has_none_left(self) -> bool:
        left = self._processes()
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left

    def _processes(self) -> list[int]:
        """Servers work in their data directory. A killed one that its parent has not noticed yet works nowhere."""
        return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit() and self._works_in_data(path)]

    def _works_in_data(self, process: Path) -> bool:
        try:
            return (process / "cwd").samefile(self.data) and (process / "exe").readlink().name == "postgres"
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return False  # it has ended, or is of somebody who owns no server of ours

    def control(self) -> Control:
        """Of a server that runs, positions are behind."""
        done = self.run("pg_controldata", f"--pgdata={self.data}")
        if done.returncode != 0:
            raise ReplicaError(f"the control file of {self.data} cannot be read: {done.stderr.strip()}")
        said = dict(re.findall(r"^([^:\n]+):\s+(.+)$", done.stdout, re.MULTILINE))
        return Control(
            state=said["Database cluster state"],
            system_identifier=int(said["Database system identifier"]),
            timeline=int(said["Latest checkpoint's TimeLineID"]),
            checkpoint_lsn=parse_lsn(said["Latest checkpoint location"]),
            segment_size_bytes=int(said["Bytes per WAL segment"]),
        )

    def run(self, program: str, *arguments: str, url: str = "") -> subprocess.CompletedProcess[str]:
        """A program of PostgreSQL, as the servers' account."""
        return subprocess.run(
            [self.binaries.path(program), *arguments],
            capture_output=True,
            text=True,
            cwd="/",
            env=client_environment(url),
            stdin=subprocess.DEVNULL,
            check=False,
            **self.account.process_owner(),
        )

    @contextmanager
    def reading(self, program: str, *arguments: str) -> Iterator[tuple[IO[str], IO[str]]]:
        """As `run`, for what may write more than fits into memory: its output, to be read first, and its complaints."""
        with subprocess.Popen(
            [self.binaries.path(program), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            env=client_environment(),
            **self.account.process_owner(),
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            yield process.stdout, process.stderr

    def configure(self, settings: Mapping[str, str]) -> None:
        """Replace what this package sets, which comes last in postgresql.conf. A running server has to be told."""
        values = {**self._address(), **settings}
        lines = ["# Written by depot-ops replica."]
        lines += [f"{name} = {quoted(value)}" for name, value in values.items()]
        self._write(CONFIGURATION, "\n".join(lines) + "\n")
        main = self.data / "postgresql.conf"
        include = f"include '{CONFIGURATION}'"
        text = main.read_text() if main.exists() else ""
        if include not in text.splitlines():
            self._write(main.name, f"{text}\n{include}\n")

    def _address(self) -> dict[str, str]:
        """A supervised server is told its address at each start."""
        if self.node.supervised:
            return {}
        return {
            "port": str(self.node.port),
            "listen_addresses": self.node.listen_addresses,
            "unix_socket_directories": self._sockets(),
        }

    def _sockets(self) -> str:
        if self.node.socket_directories is not None:
            return self.node.socket_directories
        parent = self.nodes.home(self.node.name)
        return str(parent) if len(os.fsencode(parent)) <= MAX_SOCKET_DIRECTORY_BYTES else ""

    def stay_standby(self) -> None:
        """From now on every start of this directory is read-only, by accident too."""
        self._write(STANDBY_SIGNAL, "")

    def may_be_primary(self) -> None:
        (self.data / STANDBY_SIGNAL).unlink(missing_ok=True)
        fsync(self.data)

    def _write(self, name: str, text: str) -> None:
        partial = self.data / f"{name}.partial"
        partial.touch(mode=0o600)
        partial.write_text(text)
        fsync(partial)
        self.account.own(partial)
        partial.replace(self.data / name)
        fsync(self.data)

    def last_words(self) -> str:
        if not self.log.exists():
            return "it wrote no log"
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        lines = lines[-RECENT_LOG_LINES:]
        fatal = [line for line in lines if "FATAL" in line or "PANIC" in line]
        return " ".join((fatal or lines)[-LOG_LINES:])


def quoted(value: str) -> str:
    """As a value in postgresql.conf."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def wait_until(condition: Callable[[], bool], timeout_seconds: float, otherwise: str) -> None:
    """Raises ReplicaError with `otherwise` when `condition` does not come true."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise ReplicaError(f"{otherwise} (waited {timeout_seconds:g} s)")
        time.sleep(POLL_SECONDS)
