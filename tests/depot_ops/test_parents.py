"""A child whose parent died before it could ask to be told does not stay."""

import subprocess
import sys

NOBODY = 1 << 30  # above any number that a process can have
ORPHAN = f"""
import signal
from depot_ops.parents import end_with
end_with({NOBODY}, signal.SIGINT)
print("stays")
"""


def test_an_orphan_ends_at_once():
    done = subprocess.run([sys.executable, "-c", ORPHAN], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
