"""Invariants 1 and 2 of the depot's model: durable and verified when written, never wrong when read."""

import errno
import gzip
import hashlib
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depot_api.blobstore import durability
from depot_api.blobstore.durability import FEW_FILES
from depot_api.blobstore.errors import BlobDamaged, BlobMissing, HashMismatch, StorageFull
from depot_api.blobstore.layout import StoredBlob
from depot_api.blobstore.store import LOCK_NAME, BlobStore
from depot_api.blobstore.writer import PIECE_BYTES


@pytest.fixture(scope="module")
def store():
    with tempfile.TemporaryDirectory() as directory:
        made = BlobStore(Path(directory))
        made.prepare()
        yield made
        made.close()


def root(store: BlobStore) -> Path:
    return store._layout.root


def object_path(store: BlobStore, blob: StoredBlob) -> Path:
    return store._layout.object_path(blob.sha256)


def put(store: BlobStore, content: bytes, chunk_bytes: int = 1 << 20) -> StoredBlob:
    with store.writer(hashlib.sha256(content).hexdigest()) as writer:
        for start in range(0, len(content), chunk_bytes):
            writer.write(content[start : start + chunk_bytes])
        staged = writer.finish()
    return store.commit([staged])[0]


def staged_files(store: BlobStore) -> list[Path]:
    return [path for path in (root(store) / "tmp").rglob("*") if path.is_file() and path.name != "lock"]


mixed = st.one_of(
    st.binary(max_size=3000),
    st.integers(0, 3 * PIECE_BYTES + 7).map(bytes),
    st.integers(0, 2 * PIECE_BYTES + 7).map(lambda size: hashlib.shake_128(b"x").digest(size)),
    st.integers(0, PIECE_BYTES).map(lambda n: b"text %d " * 1000 + hashlib.shake_128(b"y").digest(n)),
)


@settings(max_examples=40, deadline=None)
@given(
    content=mixed, chunk_bytes=st.integers(1000, 2_500_000), start=st.integers(0, 10_000), length=st.integers(1, 9999)
)
def test_what_goes_in_comes_out_in_one_stored_form(store, content, chunk_bytes, start, length):
    blob = put(store, content, chunk_bytes)
    stored = object_path(store, blob).read_bytes()
    assert len(stored) == blob.stored_bytes
    assert gzip.decompress(stored) == content
    assert b"".join(store.open(blob).stored_chunks()) == stored
    assert b"".join(store.open(blob).content_chunks()) == content
    assert b"".join(store.open(blob).content_chunks(start, start + length)) == content[start : start + length]
    assert put(store, content, 1 << 20) == blob
    assert object_path(store, blob).read_bytes() == stored
    assert staged_files(store) == []


def test_gunzip_reads_it(store):
    blob = put(store, b"text " * 500_000 + os.urandom(1_500_000))
    path = object_path(store, blob)
    assert subprocess.run(["gzip", "--test", path], check=False).returncode == 0
    assert blob.stored_bytes < blob.size_bytes * 0.8
    assert path.relative_to(root(store)) == Path("objects", blob.sha256[:2], f"{blob.sha256}.bin.gz")


def test_a_wrong_hash_leaves_nothing(store):
    writer = store.writer("0" * 64)
    writer.write(b"bytes")
    with pytest.raises(HashMismatch) as error:
        writer.finish()
    assert error.value.actual == hashlib.sha256(b"bytes").hexdigest()
    assert staged_files(store) == []
    with store.writer() as abandoned:
        abandoned.write(b"bytes")
    assert staged_files(store) == []


def test_a_disk_that_is_full_from_the_first_byte_keeps_nothing_of_a_writer(store, monkeypatch):
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store.temporary_file()  # the session has a descriptor of its own
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    with monkeypatch.context() as patched:
        patched.setattr(os, "writev", full)
        with pytest.raises(StorageFull):
            store.writer()
    assert staged_files(store) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


def test_a_store_that_is_opened_on_a_full_disk_can_be_read(tmp_path, monkeypatch):
    before = BlobStore(tmp_path)
    before.prepare()
    blob = put(before, b"kept")
    before.close()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    later = BlobStore(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(os, "mkdir", full)
        later.prepare()
        assert b"".join(later.open(blob).content_chunks()) == b"kept"
        with pytest.raises(StorageFull):
            later.writer()
    put(later, b"room again")
    later.close()


def test_a_session_that_finds_no_room_leaves_nothing(tmp_path, monkeypatch):
    made, opened = BlobStore(tmp_path), os.open
    made.prepare()

    def full(path: Path, *rest: int) -> int:
        if Path(path).name == LOCK_NAME:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return opened(path, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", full)
        with pytest.raises(StorageFull):
            made.writer()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_the_first_directories_are_durable_too(tmp_path, monkeypatch):
    synced: set[int] = set()
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.add(os.fstat(descriptor).st_ino))
    BlobStore(tmp_path / "store").prepare()
    assert {path.stat().st_ino for path in (tmp_path / "store", tmp_path / "store" / "objects")} <= synced


@pytest.mark.parametrize("count", [3, FEW_FILES + 1])
def test_data_is_durable_before_names_and_names_before_it_says_so(tmp_path, monkeypatch, count):
    made = BlobStore(tmp_path)
    made.prepare()
    staged = []
    for number in range(count):
        with made.writer() as writer:
            writer.write(b"%d" % number)
            staged.append(writer.finish())
    steps: list[str] = []
    inodes = {blob.path.stat().st_ino for blob in staged}
    directories = {(tmp_path / "objects" / blob.sha256[:2]).stat().st_ino for blob in staged}
    fsync, replace, libc = os.fsync, os.replace, durability._libc

    def seen_fsync(descriptor: int) -> None:
        inode = os.fstat(descriptor).st_ino
        steps.append("data" if inode in inodes else "directory" if inode in directories else "other")
        fsync(descriptor)

    def seen_syncfs(descriptor: int) -> int:
        steps.append("everything")
        return libc.syncfs(descriptor)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(os, "replace", lambda *names: (steps.append("name"), replace(*names)))
    monkeypatch.setattr(durability, "_libc", SimpleNamespace(syncfs=seen_syncfs))
    made.commit(staged)
    names = ["name"] * count
    if count > FEW_FILES:
        assert steps == ["everything", *names, "everything"]
    else:
        assert steps == ["data"] * count + names + ["directory"] * len(directories)
    made.close()


@settings(max_examples=60, deadline=None)
@given(data=st.data(), content=st.sampled_from([b"", b"a", b"text " * 3000, os.urandom(40_000)]))
def test_damage_is_never_read_as_content(store, data, content):
    blob = put(store, content)
    path = object_path(store, blob)
    stored = path.read_bytes()
    place = data.draw(st.integers(0, len(stored) - 1))
    damage = data.draw(st.sampled_from(["flip", "truncate", "append", "remove"]))
    try:
        if damage == "flip":
            path.write_bytes(
                stored[:place] + bytes([stored[place] ^ data.draw(st.integers(1, 255))]) + stored[place + 1 :]
            )
        elif damage == "truncate":
            path.write_bytes(stored[:place])
        elif damage == "append":
            path.write_bytes(stored + b"x")
        else:
            path.unlink()
        if damage != "flip":
            assert not store.is_intact(blob)
        for read in ("stored_chunks", "content_chunks"):
            try:
                got = b"".join(getattr(store.open(blob), read)())
            except (BlobDamaged, BlobMissing):
                continue
            # A flip in the gzip header's time or system field changes no content.
            assert read == "content_chunks" and got == content
        if content:
            with pytest.raises((BlobDamaged, BlobMissing)):
                list(
                    store.open(blob).content_chunks(0, len(content) - 1)
                    if len(content) > 1
                    else store.open(blob).stored_chunks()
                )
    finally:
        path.write_bytes(stored)


def test_more_content_than_recorded_is_not_unpacked(store):
    blob = put(store, bytes(5_000_000))
    lie = StoredBlob(blob.sha256, 10, blob.stored_bytes, blob.stored_crc32)
    with pytest.raises(BlobDamaged, match="longer"):
        list(store.open(lie).content_chunks())


def test_sending_again_heals(store):
    blob = put(store, b"precious")
    object_path(store, blob).write_bytes(b"rubbish")
    with pytest.raises(BlobDamaged):
        store.verify(blob)
    assert put(store, b"precious") == blob
    store.verify(blob)


@pytest.mark.parametrize("count", [1, 3, 40])
def test_a_group_is_committed_together(store, count):
    contents = [os.urandom(100) for _ in range(count)]
    staged = []
    for content in contents:
        writer = store.writer()
        writer.write(content)
        staged.append(writer.finish())
    blobs = store.commit(staged)
    assert [b"".join(store.open(blob).content_chunks()) for blob in blobs] == contents
    assert staged_files(store) == []


def test_many_threads_write_the_same_content(store):
    content = os.urandom(2_000_000)
    with ThreadPoolExecutor(8) as pool:
        blobs = set(pool.map(lambda _: put(store, content), range(16)))
    assert len(blobs) == 1
    store.verify(blobs.pop())


WRITE_FOR_EVER = """
import os, sys
from pathlib import Path
from depot_api.blobstore.store import BlobStore
store = BlobStore(Path(sys.argv[1])); store.prepare()
print("ready", flush=True)
while True:
    staged = []
    for _ in range(12):
        writer = store.writer(); writer.write(os.urandom(50_000)); staged.append(writer.finish())
    for blob in store.commit(staged):
        print(blob.sha256, blob.size_bytes, blob.stored_bytes, blob.stored_crc32, flush=True)
"""


def test_kill_9_leaves_only_whole_objects_and_the_next_start_cleans_up(tmp_path):
    """Of a dead writer everything is removed; of a live one in another process, nothing."""
    victim, survivor = (
        subprocess.Popen([sys.executable, "-c", WRITE_FOR_EVER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    )
    acknowledged = []
    with victim, survivor:
        assert survivor.stdout.readline() == victim.stdout.readline() == "ready\n"
        for _ in range(100):
            acknowledged.append(victim.stdout.readline().split())
        victim.kill()
        victim.wait()
        acknowledged += [line.split() for line in victim.stdout if line.endswith("\n")]
        store = BlobStore(tmp_path)
        assert store.prepare() == 1
        before = len(survivor.stdout.readline())
        assert before > 1, "the live writer goes on"
        survivor.kill()
        survivor.wait()
    for sha256, *figures in acknowledged:
        store.verify(StoredBlob(sha256, *map(int, figures)))
    for path in (tmp_path / "objects").rglob("*.bin.gz"):
        assert hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest() == path.name.removesuffix(".bin.gz")
    store.close()


def test_sessions_that_begin_together_leave_each_other_alone(tmp_path):
    stores = [BlobStore(tmp_path) for _ in range(32)]
    with ThreadPoolExecutor(len(stores)) as pool:
        assert sum(pool.map(BlobStore.prepare, stores)) == 0
    for store in stores:
        put(store, b"content")
        store.close()


FLAT = """
import resource, sys, os
from pathlib import Path
from depot_api.blobstore.store import BlobStore
store = BlobStore(Path(sys.argv[1])); store.prepare()
piece = os.urandom(1 << 19) + bytes(1 << 19)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
writer = store.writer()
for _ in range(256): writer.write(piece)
blob, = store.commit([writer.finish()])
for _ in store.open(blob).content_chunks(): pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_does_not_grow_with_size(tmp_path):
    command = [sys.executable, "-c", FLAT, str(tmp_path)]
    grown_kib = int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    assert grown_kib < 24 * 1024
