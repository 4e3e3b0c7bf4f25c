"""What holds off removals, and what a removal holds off."""

import fcntl
import threading
import time
from pathlib import Path

from depot_api.blobstore.copies import REMOVAL_GATE, removals_held_off, removing
from depot_api.blobstore.layout import Layout


def wait_until(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_held(path: Path) -> bool:
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_a_removal_waits_for_copies_that_go_on_and_for_none_that_begins_later(tmp_path):
    store, order = Layout(tmp_path), []

    def remove():
        with removing(store):
            order.append("removed")

    def copy():
        with removals_held_off(store):
            order.append("copied")

    with removals_held_off(store), removals_held_off(store):
        removal = threading.Thread(target=remove)
        removal.start()
        wait_until(lambda: is_held(tmp_path / REMOVAL_GATE))
        later = threading.Thread(target=copy)
        later.start()
        later.join(0.2)
        assert (later.is_alive(), order) == (True, [])
    removal.join(30)
    later.join(30)
    assert order == ["removed", "copied"]
