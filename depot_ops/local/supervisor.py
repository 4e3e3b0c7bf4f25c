"""Keeps named processes running: reports a death, restarts with back-off, and gives up on one that keeps dying."""

import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from depot_ops.parents import end_with

MAX_DEATHS = 5
DEATH_WINDOW_SECONDS = 60.0
FIRST_BACKOFF_SECONDS = 0.5
MAX_BACKOFF_SECONDS = 10.0
CHECK_SECONDS = 0.2
STOP_TIMEOUT_SECONDS = 40.0
LOG_TAIL_LINES = 5


class GaveUp(Exception):
    """A process died too often; the message has the end of its log."""


class CannotStart(Exception):
    """A service did not come up; the message says why."""


class Service(Protocol):
    """Something that runs until it is stopped. `start` raises CannotStart or OSError."""

    @property
    def name(self) -> str: ...
    @property
    def log(self) -> Path: ...
    @property
    def process(self) -> subprocess.Popen[bytes] | None: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...


@dataclass
class Program:
    """A command of ours in its own process group, logging to a file. It is stopped when this process dies."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=partial(_stop_with, os.getpid()),  # noqa: PLW1509 - four system calls, no lock
            )

    def stop(self) -> None:
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._kill_group(self.process.pid)
        self.process = None

    def _kill_group(self, group: int) -> None:
        """Children that outlived their parent would keep its port."""
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            return


def _stop_with(parent: int) -> None:
    end_with(parent, signal.SIGTERM)
    # What is ignored is inherited: INT in a script's background job, and TERM once Dagster has copied it from INT.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


class Supervisor:
    """Watches services that were started. All calls come from one thread, which lives as long as they do."""

    def __init__(self, report: Callable[[str], None], restarted: Callable[[], None]) -> None:
        self._report = report
        self._restarted = restarted
        self._services: list[Service] = []
        self._deaths: dict[str, deque[float]] = {}
        self._restart_at: dict[str, float] = {}

    def start(self, service: Service) -> None:
        """Start it and watch it from now on."""
        self._services.append(service)
        self._deaths[service.name] = deque()
        service.start()

    def pids(self) -> dict[str, int]:
        return {service.name: service.process.pid for service in self._services if service.process is not None}

    def watch(self, stop: threading.Event) -> None:
        """Until `stop` is set. Raises GaveUp."""
        while not stop.wait(CHECK_SECONDS):
            self.check()

    def check(self) -> None:
        """Look at every service once. Raises GaveUp."""
        for service in self._services:
            self._check(service)

    def _check(self, service: Service) -> None:
        now = time.monotonic()
        if service.process is not None and service.process.poll() is not None:
            self._died(service, _how(service.process.returncode), now)
        if service.process is None and now >= self._restart_at.get(service.name, now):
            try:
                service.start()
            except (CannotStart, OSError) as error:
                self._died(service, f"as it was started: {error}", time.monotonic())
            if service.process is None:  # it could not be started, said so, and is tried again
                return
            self._report(f"{service.name} runs again")
            self._restarted()

    def _died(self, service: Service, how: str, now: float) -> None:
        deaths = self._deaths[service.name]
        deaths.append(now)
        while deaths[0] < now - DEATH_WINDOW_SECONDS:
            deaths.popleft()
        service.stop()
        if len(deaths) >= MAX_DEATHS:
            raise GaveUp(
                f"{service.name} died {len(deaths)} times in {DEATH_WINDOW_SECONDS:.0f} s, last {how}. "
                f"The end of {service.log}:\n{tail(service.log)}"
            )
        backoff_seconds = min(FIRST_BACKOFF_SECONDS * 2 ** (len(deaths) - 1), MAX_BACKOFF_SECONDS)
        self._restart_at[service.name] = now + backoff_seconds
        self._report(f"{service.name} died {how}; starting it again in {backoff_seconds:.1f} s")

    def stop(self) -> None:
        """In the reverse of the order they were started in."""
        for service in reversed(self._services):
            service.stop()


def _how(returncode: int) -> str:
    return f"by {signal.Signals(-returncode).name}" if returncode < 0 else f"with exit code {returncode}"


def tail(log: Path) -> str:
    if not log.exists():
        return "(it wrote none)"
    return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
