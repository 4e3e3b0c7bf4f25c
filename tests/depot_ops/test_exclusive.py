"""A lock that goes with its holder, and says only what it means."""

import subprocess
import sys
import threading
import time

import pytest

from depot_ops.exclusive import exclusively

HOLD = """
import sys, time, pathlib
from depot_ops.exclusive import exclusively
with exclusively(pathlib.Path(sys.argv[1]), RuntimeError("taken")):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_another_process_is_refused_until_the_holder_was_killed(tmp_path):
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        began = time.monotonic()
        with pytest.raises(RuntimeError, match="taken"), exclusively(path, RuntimeError("taken")):
            pytest.fail("two hold it")
        assert time.monotonic() - began < 1
        threading.Timer(0.2, holder.kill).start()
        with exclusively(path, RuntimeError("taken"), wait_seconds=10):
            pass
    with exclusively(path, RuntimeError("taken")):
        pass


def test_what_fails_within_the_block_is_not_called_another_holder(tmp_path):
    with pytest.raises(BlockingIOError), exclusively(tmp_path / "lock", RuntimeError("taken")):
        raise BlockingIOError
    with exclusively(tmp_path / "lock", RuntimeError("taken")):
        pass
