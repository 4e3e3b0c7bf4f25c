"""Files that change while they are read, against the real service."""

import hashlib
import threading
import time
from pathlib import Path

import pytest

from depot_api.client import FileChanged
from depot_api.client.files import FileStat
from depot_api.client.progress import Silent
from depot_api.client.upload import PACK_BYTES, SMALL_BYTES, Candidate, Uploaded, Uploader
from depot_api.client.workspace import Seen

SIZES = [1_000, SMALL_BYTES, SMALL_BYTES + 1, 5_000_000]


def upload(depot, root: Path, candidates: list[Candidate]) -> list[Uploaded]:
    uploader = Uploader(depot.client, depot.project.id, root, frozenset(), Silent())
    return list(uploader.upload(candidates))


def missing(depot, content: bytes) -> bool:
    return bool(depot.client.missing(depot.project.id, [hashlib.sha256(content).hexdigest()]))


@pytest.mark.parametrize("size_bytes", SIZES)
def test_a_file_that_changed_since_the_scan_is_read_again(depot, tmp_path: Path, size_bytes: int) -> None:
    path = tmp_path / "a"
    content = b"n" * size_bytes
    path.write_bytes(content)
    scanned = FileStat(size_bytes, path.stat().st_mtime_ns - 1, path.stat().st_ino)
    (done,) = upload(depot, tmp_path, [Candidate("a", scanned)])
    assert done.seen["a"].sha256 == hashlib.sha256(content).hexdigest()
    assert done.seen["a"].stat == FileStat.of(path.stat())
    assert not missing(depot, content)


@pytest.mark.parametrize("size_bytes", SIZES)
def test_a_hash_that_is_no_longer_true_is_never_believed_by_the_depot(depot, tmp_path: Path, size_bytes: int) -> None:
    path = tmp_path / "a"
    content = b"n" * size_bytes
    path.write_bytes(content)
    stat = FileStat.of(path.stat())
    wrong = Seen(stat, hashlib.sha256(b"what it was").hexdigest(), 0)
    (done,) = upload(depot, tmp_path, [Candidate("a", stat, wrong)])
    assert done.seen["a"].sha256 == hashlib.sha256(content).hexdigest()
    assert missing(depot, b"what it was")


@pytest.mark.parametrize("size_bytes", [SMALL_BYTES // 2, 20_000_000])
def test_a_file_that_never_stays_the_same_is_told(depot, tmp_path: Path, size_bytes: int) -> None:
    path = tmp_path / "busy"
    path.write_bytes(b"x" * size_bytes)
    stop = threading.Event()

    def keep_writing() -> None:
        with path.open("r+b", buffering=0) as file:
            while not stop.is_set():
                file.seek(0)
                file.write(b"y")

    writer = threading.Thread(target=keep_writing)
    writer.start()
    try:
        before = FileStat(size_bytes, 0, path.stat().st_ino)
        with pytest.raises(FileChanged, match="busy changed"):
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:  # within one tick of the clock nobody can tell
                upload(depot, tmp_path, [Candidate("busy", before)])
    finally:
        stop.set()
        writer.join()


def test_many_files_travel_in_packs_and_equal_contents_once(depot, tmp_path: Path) -> None:
    candidates = []
    for number in range(60):
        path = tmp_path / f"f{number}"
        path.write_bytes(b"%03d" % (number % 50) * 300_000)
        candidates.append(Candidate(path.name, FileStat.of(path.stat())))
    done = upload(depot, tmp_path, candidates)
    assert len(done) == -(-60 * 900_000 // (PACK_BYTES // 900_000 * 900_000))
    assert sum(one.sent_objects for one in done) >= 50
    assert not missing(depot, b"007" * 300_000)
    again = upload(depot, tmp_path, candidates)
    assert sum(one.sent_objects for one in again) == 0
    assert sum(len(one.seen) for one in again) == 60
