"""Reads from a disk that fails: the other copy's bytes or a 502, never a 500."""

import asyncio
import errno
import gzip
from pathlib import Path

import pytest
from starlette.requests import Request

from depot_api.blobstore import pack
from depot_api.blobstore.bucket import MOST_ATTEMPTS, BucketCopy, for_waiting_readers
from depot_api.blobstore.copies import commit_copies, stage_copy
from depot_api.blobstore.errors import BlobDamaged
from depot_api.blobstore.layout import Layout
from depot_api.blobstore.store import BlobStore
from depot_api.objects.sending import content_response, pack_response
from depot_api.problems import ContentDamaged
from depot_api.s3 import ObjectStorageSettings

CONTENT = b"a texture " * 1000


@pytest.fixture
def stored(tmp_path, unreadable):
    """A store with a mirror, and an object in both that the store's disk does not read."""
    store, mirror = BlobStore(tmp_path / "store", tmp_path / "mirror"), BlobStore(tmp_path / "mirror")
    store.prepare()
    mirror.prepare()
    with store.writer() as writer:
        writer.write(CONTENT)
        (blob,) = store.commit([writer.finish()])
    source, target = Layout(tmp_path / "store"), Layout(tmp_path / "mirror")
    commit_copies([stage_copy(source, blob.sha256, mirror.temporary_file())], source, target, source)
    unreadable(source.object_path(blob.sha256))
    return store, blob, target.object_path(blob.sha256)


def read(store, blob, accept: str) -> bytes:
    headers = [(b"accept-encoding", accept.encode())]

    async def answer() -> bytes:
        response = await content_response(Request({"type": "http", "headers": headers}), store, blob)
        return b"".join([chunk async for chunk in response.body_iterator])

    return asyncio.run(answer())


@pytest.mark.parametrize("accept", ["gzip", "identity"])
def test_the_mirror_is_asked(stored, accept):
    store, blob, _ = stored
    answer = read(store, blob, accept)
    assert (gzip.decompress(answer) if accept == "gzip" else answer) == CONTENT
    store.verify(blob)


def test_a_pack_is_whole_where_the_disk_does_not_even_tell_sizes(stored, monkeypatch):
    store, blob, _ = stored

    def stat(path, **_):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "stat", stat)
        assert not store.is_intact(blob)
        with pytest.raises(BlobDamaged, match="cannot be read"):
            store.open(blob)
    response = asyncio.run(pack_response(store, [blob]))
    assert int(response.headers["content-length"]) == blob.stored_bytes + pack.HEADER_BYTES


@pytest.mark.parametrize("accept", ["gzip", "identity"])
def test_without_another_copy_it_is_a_problem_that_says_so(stored, accept):
    store, blob, mirrored = stored
    mirrored.unlink()
    with pytest.raises(ContentDamaged, match="cannot be read"):
        read(store, blob, accept)


def test_whoever_waits_does_not_wait_for_every_attempt_and_operations_do():
    patient = ObjectStorageSettings(s3_attempts=7)
    assert for_waiting_readers(patient).s3_attempts == MOST_ATTEMPTS
    assert BucketCopy("s3://bucket/prefix", patient)._s3.meta.config.retries["total_max_attempts"] == 7
