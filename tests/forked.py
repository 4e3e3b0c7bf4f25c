"""Commands and services as processes of their own, forked from one that has imported them, which takes a second.

They are as real as those that are started anew, but for what an interpreter does before it runs `main()`.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from pathlib import Path


class Program(StrEnum):
    """The module of a `main()`."""

    DEPOT = "depot_api.cli"
    SERVICE = "depot_api.__main__"


SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload([*(program.value for program in Program), "depot_api.app", "tests.forked"])


@dataclass(frozen=True)
class Streams:
    """The files that are a process's standard streams."""

    given: Path
    out: Path
    err: Path


class Forked:
    """A program that runs, with what tests need of `subprocess.Popen`."""

    def __init__(
        self,
        program: Program,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        streams: Streams,
        directory: Path | None = None,
    ) -> None:
        self.args = [program.value, *arguments]
        given = (program, arguments, dict(environment), streams, directory or Path.cwd())
        self._process = SERVER.Process(target=_run, args=given)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        returncode = self.poll()
        if returncode is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self.args, timeout)
        return returncode

    def send_signal(self, number: int) -> None:
        with suppress(ProcessLookupError):  # it has ended just now
            if self.poll() is None:
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _run(program: Program, arguments: Sequence[str], environment: dict[str, str], streams: Streams, home: Path) -> None:
    for number, path in enumerate((streams.given, streams.out, streams.err)):
        opened = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT if number else os.O_RDONLY, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115  # as long as the process lives
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(home)
    sys.argv = [program.value, *arguments]
    import_module(program.value).main()


def run_depot(
    arguments: Sequence[str], environment: Mapping[str, str], directory: Path, stdin: str, timeout_seconds: float
) -> subprocess.CompletedProcess[str]:
    """The `depot` command, as subprocess.run runs it. Raises subprocess.TimeoutExpired."""
    with tempfile.TemporaryDirectory(prefix="depot-command-") as name:
        streams = Streams(*(Path(name) / stream for stream in ("in", "out", "err")))
        streams.given.write_text(stdin)
        process = Forked(Program.DEPOT, arguments, environment, streams, directory)
        try:
            returncode = process.wait(timeout_seconds)
        finally:
            process.kill()
        return subprocess.CompletedProcess(process.args, returncode, streams.out.read_text(), streams.err.read_text())
