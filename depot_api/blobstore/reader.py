"""Reading objects. Whoever gets all chunks got the right bytes: the last is held back until the check has passed."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from isal import isal_zlib

from depot_api.blobstore.errors import BlobDamaged, BlobMissing
from depot_api.blobstore.layout import StoredBlob

GZIP_MEMBER = 31
# The stubs declare the class as if it were an instance.
ISAL_ERROR = cast(type[Exception], isal_zlib.error)
CHUNK_BYTES = 1 << 20


@contextmanager
def reading(sha256: str) -> Iterator[None]:
    """What a dying disk says of an object is damage of that object: BlobDamaged; and BlobMissing when it is not there.

    To be held around calls to the file system only.
    """
    try:
        yield
    except FileNotFoundError:
        raise BlobMissing(sha256) from None
    except OSError as error:
        raise BlobDamaged(sha256, f"it cannot be read: {error}") from error


def file_chunks(path: Path, sha256: str, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
    """An object's stored form as it lies there. Raises BlobMissing, and BlobDamaged when it cannot be read."""
    with reading(sha256), path.open("rb", buffering=0) as file:
        while chunk := file.read(chunk_bytes):
            yield chunk


class BlobReader:
    """One object, opened for reading from the start as often as wanted."""

    def __init__(self, path: Path, blob: StoredBlob) -> None:
        """Raises BlobMissing, or BlobDamaged when the file does not have the size that was recorded."""
        self._path = path
        self._blob = blob
        with reading(blob.sha256):
            stored_bytes = path.stat().st_size
        if stored_bytes != blob.stored_bytes:
            raise self._damaged(f"it has {stored_bytes} bytes instead of {blob.stored_bytes}")

    def stored_chunks(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
        """The gzip member as it lies. Raises BlobDamaged instead of its last chunk."""
        crc32, held = 0, b""
        for chunk in file_chunks(self._path, self._blob.sha256, chunk_bytes):
            if held:
                yield held
            crc32 = isal_zlib.crc32(chunk, crc32)
            held = chunk
        if crc32 != self._blob.stored_crc32:
            raise self._damaged("the CRC-32 of the stored bytes is wrong")
        yield held

    def content_chunks(self, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The content from byte `start` up to before `end`. Raises BlobDamaged instead of wrong bytes.

        A range is only served after the whole file's CRC-32 was found right: its own bytes cannot be hashed alone.
        """
        size_bytes = self._blob.size_bytes
        end = size_bytes if end is None else min(end, size_bytes)
        if (start, end) == (0, size_bytes):
            yield from self._whole()
            return
        for _ in self.stored_chunks():
            pass
        yield from self._span(start, end)

    def _whole(self) -> Iterator[bytes]:
        sha256, held = hashlib.sha256(), b""
        for chunk in self._decompressed():
            if held:
                yield held
            sha256.update(chunk)
            held = chunk
        if sha256.hexdigest() != self._blob.sha256:
            raise self._damaged("its content has another SHA-256")
        yield held

    def _span(self, start: int, end: int) -> Iterator[bytes]:
        position = 0
        for chunk in self._decompressed():
            wanted = chunk[max(0, start - position) : max(0, end - position)]
            position += len(chunk)
            if wanted:
                yield wanted
            if position >= end:
                return

    def _decompressed(self) -> Iterator[bytes]:
        """Never more than the recorded size plus one chunk, whatever the file claims."""
        inflate = isal_zlib.decompressobj(GZIP_MEMBER)
        size_bytes = 0
        try:
            for stored in file_chunks(self._path, self._blob.sha256):
                data = stored
                while data and not inflate.eof:
                    chunk = inflate.decompress(data, CHUNK_BYTES)
                    data = inflate.unconsumed_tail
                    size_bytes += len(chunk)
                    if size_bytes > self._blob.size_bytes:
                        raise self._damaged(f"its content is longer than {self._blob.size_bytes} bytes")
                    if chunk:
                        yield chunk
                if inflate.eof and (data or inflate.unused_data):
                    raise self._damaged("there are bytes behind the end of its gzip member")
        except ISAL_ERROR as error:
            raise self._damaged(f"its gzip member cannot be read ({error})") from error
        if not inflate.eof or size_bytes != self._blob.size_bytes:
            raise self._damaged(f"its content ends after {size_bytes} of {self._blob.size_bytes} bytes")

    def _damaged(self, seen: str) -> BlobDamaged:
        return BlobDamaged(self._blob.sha256, seen)
