"""Deaths are reported and mended, and one that keeps dying is given up on. With real, tiny processes."""

import os
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from depot_ops.local.supervisor import MAX_DEATHS, CannotStart, GaveUp, Program, Supervisor


def program(name: str, code: str, log: Path) -> Program:
    return Program(name, [sys.executable, "-c", code], os.environ, log)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def supervisor(said):
    made = Supervisor(said.append, lambda: None)
    yield made
    made.stop()


def wait_until(condition, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_process_that_dies_is_started_again(supervisor, said, tmp_path):
    sleeper = program("sleeper", "import time; time.sleep(600)", tmp_path / "log")
    supervisor.start(sleeper)
    first = supervisor.pids()["sleeper"]
    psutil.Process(first).kill()

    def again() -> bool:
        supervisor.check()
        return supervisor.pids().get("sleeper", first) != first

    wait_until(again)
    assert said == ["sleeper died by SIGKILL; starting it again in 0.5 s", "sleeper runs again"]
    pid = supervisor.pids()["sleeper"]
    supervisor.stop()
    assert not psutil.pid_exists(pid)


def test_one_that_keeps_dying_is_given_up_on_with_the_end_of_its_log(supervisor, said, tmp_path):
    supervisor.start(program("broken", "import sys; sys.exit('the reason')", tmp_path / "log"))
    with pytest.raises(GaveUp, match=rf"(?s)broken died {MAX_DEATHS} times.*exit code 1.*the reason"):
        supervisor.watch(threading.Event())
    assert len(said) == 2 * (MAX_DEATHS - 1)


class Stubborn:
    """A service that runs once, and cannot be started again a number of times."""

    name = "stubborn"

    def __init__(self, log: Path, refusals: int) -> None:
        self.program = program("stubborn", "import time; time.sleep(600)", log)
        self.log = log
        self.refusals = refusals

    @property
    def process(self):
        return self.program.process

    def start(self) -> None:
        if self.log.exists() and self.refusals:
            self.refusals -= 1
            raise CannotStart("not now")
        self.program.start()

    def stop(self) -> None:
        self.program.stop()


def test_a_start_that_fails_is_tried_again_with_back_off(supervisor, said, tmp_path):
    supervisor.start(Stubborn(tmp_path / "log", refusals=2))
    psutil.Process(supervisor.pids()["stubborn"]).kill()

    def again() -> bool:
        supervisor.check()
        return said[-1:] == ["stubborn runs again"]

    wait_until(again)
    assert said == [
        "stubborn died by SIGKILL; starting it again in 0.5 s",
        "stubborn died as it was started: not now; starting it again in 1.0 s",
        "stubborn died as it was started: not now; starting it again in 2.0 s",
        "stubborn runs again",
    ]


def test_one_that_cannot_be_started_is_given_up_on(supervisor, tmp_path):
    supervisor.start(Stubborn(tmp_path / "log", refusals=MAX_DEATHS))
    psutil.Process(supervisor.pids()["stubborn"]).kill()
    with pytest.raises(GaveUp, match=f"stubborn died {MAX_DEATHS} times.*as it was started: not now"):
        supervisor.watch(threading.Event())


def test_children_of_a_dead_process_do_not_keep_its_port(supervisor, tmp_path):
    code = "import subprocess; child = subprocess.Popen(['sleep', '600']); print(child.pid, flush=True); child.wait()"
    log = tmp_path / "log"
    supervisor.start(program("parent", code, log))
    wait_until(lambda: log.read_text().strip() != "")
    child = int(log.read_text().split()[0])
    psutil.Process(supervisor.pids()["parent"]).kill()

    def gone() -> bool:
        supervisor.check()
        return not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE

    wait_until(gone)


def test_watching_ends_when_told(supervisor, tmp_path):
    supervisor.start(program("sleeper", "import time; time.sleep(600)", tmp_path / "log"))
    stop = threading.Event()
    watcher = threading.Thread(target=supervisor.watch, args=(stop,))
    watcher.start()
    stop.set()
    watcher.join(5)
    assert not watcher.is_alive()
