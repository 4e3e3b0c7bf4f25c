"""No process of ours outlives whoever started it, however that ended."""

import ctypes
import os
from signal import Signals

PR_SET_PDEATHSIG = 1


def end_with(parent: int, how: Signals) -> None:
    """Runs in a child before exec: it gets the signal `how` when `parent`, which has forked it, dies."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, how)
    if os.getppid() != parent:  # it died before we asked, and nobody would ever tell
        os._exit(1)
