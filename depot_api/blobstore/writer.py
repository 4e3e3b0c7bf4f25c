"""The one streaming writer: hash, compress, write. It leaves a staged file, which BlobStore.commit makes an object."""

import hashlib
import os
import struct
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from isal import isal_zlib

from depot_api.blobstore.durability import full_disk_told, start_writeback
from depot_api.blobstore.errors import HashMismatch

# Content is cut into pieces of this size whatever the caller's chunks are, so that the stored form of some content is
# always the same. Each piece is compressed for itself, or stored when its first bytes do not shrink.
PIECE_BYTES = 1 << 20
SAMPLE_BYTES = 32 << 10
WORTH_COMPRESSING = 0.85  # what saves less than a seventh is not worth the time of those who wait for it
COMPRESSION_LEVEL = 1
RAW_DEFLATE = -15
WRITEBACK_BYTES = 32 << 20

# RFC 1952: magic, deflate, no flags, no time, unknown system: the same content gives the same file.
GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
# RFC 1951 section 3.2.4: stored blocks hold up to 65,535 bytes; an empty last one ends the stream.
MAX_STORED_BLOCK_BYTES = 0xFFFF
LAST_BLOCK = b"\x01\x00\x00\xff\xff"


# Buffers that no writer uses just now: fresh memory costs more to touch than to fill. As many as ever wrote at once.
_FREE_PIECES: deque[memoryview] = deque()


@dataclass(frozen=True, slots=True)
class StagedBlob:
    """Written under a temporary name; not durable and not an object yet."""

    path: Path
    sha256: str
    size_bytes: int
    stored_bytes: int
    stored_crc32: int


class BlobWriter:
    """Takes content in chunks of any size. Used by one thread at a time.

    As a context manager it removes what it wrote unless `finish` succeeded.
    """

    def __init__(self, path: Path, expected_sha256: str | None) -> None:
        self._path = path
        self._expected_sha256 = expected_sha256
        self._hash = hashlib.sha256()
        self._piece = _take_piece()
        self._filled_bytes = 0
        self._size_bytes = 0
        self._content_crc32 = 0
        self._stored_bytes = 0
        self._stored_crc32 = 0
        self._unsynced_bytes = 0
        with full_disk_told():
            self._file: int | None = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
        try:
            with full_disk_told():
                self._write([GZIP_HEADER])
        except BaseException:
            self.abort()
            raise

    def __enter__(self) -> "BlobWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self.abort()

    def write(self, data: bytes | memoryview) -> None:
        """Raises StorageFull."""
        view = memoryview(data)
        while view:
            taken = min(len(view), PIECE_BYTES - self._filled_bytes)
            if taken == PIECE_BYTES:
                self._add(view[:taken])
            else:
                self._piece[self._filled_bytes : self._filled_bytes + taken] = view[:taken]
                self._filled_bytes += taken
                self._add_filled(PIECE_BYTES)
            view = view[taken:]

    def finish(self) -> StagedBlob:
        """Raises HashMismatch when the content is not what was expected, or StorageFull; then nothing is left."""
        try:
            self._add_filled(1)
            with full_disk_told():
                trailer = struct.pack("<II", self._content_crc32, self._size_bytes & 0xFFFFFFFF)
                self._write([LAST_BLOCK, trailer])
            self._check_hash()
        except BaseException:
            self.abort()
            raise
        self._close()
        return StagedBlob(self._path, self._hash.hexdigest(), self._size_bytes, self._stored_bytes, self._stored_crc32)

    def _check_hash(self) -> None:
        actual = self._hash.hexdigest()
        if self._expected_sha256 not in (None, actual):
            raise HashMismatch(str(self._expected_sha256), actual)

    def abort(self) -> None:
        """Remove what was written. Safe to call again."""
        self._close()
        self._path.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
            _FREE_PIECES.append(self._piece)

    def _add_filled(self, at_least_bytes: int) -> None:
        if self._filled_bytes >= at_least_bytes:
            self._add(self._piece[: self._filled_bytes])
            self._filled_bytes = 0

    def _add(self, piece: memoryview) -> None:
        self._hash.update(piece)
        self._content_crc32 = isal_zlib.crc32(piece, self._content_crc32)
        self._size_bytes += len(piece)
        with full_disk_told():
            self._write(_compressed(piece) if _shrinks(piece[:SAMPLE_BYTES]) else _stored(piece))

    def _write(self, buffers: list[bytes | memoryview]) -> None:
        assert self._file is not None, "the writer is finished"
        size_bytes = 0
        for buffer in buffers:
            self._stored_crc32 = isal_zlib.crc32(buffer, self._stored_crc32)
            size_bytes += len(buffer)
        _write_fully(self._file, buffers, size_bytes)
        self._stored_bytes += size_bytes
        self._unsynced_bytes += size_bytes
        if self._unsynced_bytes >= WRITEBACK_BYTES:
            start_writeback(self._file)
            self._unsynced_bytes = 0


def _take_piece() -> memoryview:
    try:
        return _FREE_PIECES.pop()
    except IndexError:
        return memoryview(bytearray(PIECE_BYTES))


def _shrinks(sample: memoryview) -> bool:
    return len(isal_zlib.compress(sample, COMPRESSION_LEVEL, RAW_DEFLATE)) < WORTH_COMPRESSING * len(sample)


def _compressed(piece: memoryview) -> list[bytes | memoryview]:
    """Deflate blocks that end on a byte, with no reference across pieces."""
    deflate = isal_zlib.compressobj(COMPRESSION_LEVEL, wbits=RAW_DEFLATE)
    return [deflate.compress(piece), deflate.flush(isal_zlib.Z_FULL_FLUSH)]


def _stored(piece: memoryview) -> list[bytes | memoryview]:
    buffers: list[bytes | memoryview] = []
    for start in range(0, len(piece), MAX_STORED_BLOCK_BYTES):
        block = piece[start : start + MAX_STORED_BLOCK_BYTES]
        buffers += (struct.pack("<BHH", 0, len(block), len(block) ^ 0xFFFF), block)
    return buffers


def _write_fully(descriptor: int, buffers: list[bytes | memoryview], size_bytes: int) -> None:
    """writev(2) may write less than asked for, as on the last free block of a disk."""
    written = os.writev(descriptor, buffers)
    if written == size_bytes:
        return
    rest = memoryview(b"".join(buffers))[written:]
    while rest:
        rest = rest[os.write(descriptor, rest) :]
