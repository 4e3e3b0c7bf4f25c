"""A fresh embedded stack without Dagster, and the commands run against it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from depot_ops.local.ports import any_free

BIN = Path(sys.executable).parent
START_TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Stack:
    """Where it answers, and as whom."""

    api_url: str
    token: str
    api_pid: int
    database_url: str

    def depot(self, *arguments: str) -> dict[str, object]:
        """Run `depot` with --json, and return what it says."""
        environment = {**os.environ, "DEPOT_URL": self.api_url, "DEPOT_TOKEN": self.token}
        done = subprocess.run([BIN / "depot", *arguments, "--json"], env=environment, capture_output=True, check=True)
        answer: dict[str, object] = json.loads(done.stdout)
        return answer

    def resident_bytes(self) -> int:
        """Of the API's processes together."""
        api = psutil.Process(self.api_pid)
        return sum(process.memory_info().rss for process in (api, *api.children(recursive=True)))


@contextmanager
def fresh_stack(data_dir: Path, workers: int, *, dagster: bool = False) -> Iterator[Stack]:
    """Started on an empty directory, stopped at the end."""
    command = [BIN / "depot-ops", "up", "--data-dir", data_dir]
    command += ["--dagster-port", str(any_free())] if dagster else ["--no-dagster"]
    command += ["--api-port", str(any_free()), "--api-workers", str(workers)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    description = data_dir / "stack.json"
    try:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not description.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the stack did not start; run depot-ops up to see why")
            time.sleep(0.1)
        told = json.loads(description.read_text())
        yield Stack(told["api_url"], told["admin_token"], told["pids"]["api"], told["database_url"])
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


@contextmanager
def peak_resident_bytes(stack: Stack) -> Iterator[list[int]]:
    """Sampled twenty times a second while the block runs."""
    samples, stop = [stack.resident_bytes()], threading.Event()

    def sample() -> None:
        while not stop.wait(0.05):
            samples.append(stack.resident_bytes())

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield samples
    finally:
        stop.set()
        sampler.join()
