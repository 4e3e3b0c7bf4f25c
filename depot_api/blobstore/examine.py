"""Finding out what an object is when no record of it is at hand, or none is believed."""

import hashlib
from pathlib import Path

from isal import isal_zlib

from depot_api.blobstore.errors import BlobDamaged
from depot_api.blobstore.layout import Layout, StoredBlob
from depot_api.blobstore.reader import CHUNK_BYTES, GZIP_MEMBER, ISAL_ERROR, file_chunks


class StoredHasher:
    """Takes an object's stored form in chunks and tells what it holds. Memory does not grow with size."""

    def __init__(self, sha256: str) -> None:
        self._name = sha256
        self._inflate = isal_zlib.decompressobj(GZIP_MEMBER)
        self._hash = hashlib.sha256()
        self._size_bytes = 0
        self._stored_bytes = 0
        self._stored_crc32 = 0

    def feed(self, chunk: bytes) -> None:
        """Raises BlobDamaged."""
        self._stored_bytes += len(chunk)
        self._stored_crc32 = isal_zlib.crc32(chunk, self._stored_crc32)
        try:
            while chunk and not self._inflate.eof:
                content = self._inflate.decompress(chunk, CHUNK_BYTES)
                chunk = self._inflate.unconsumed_tail
                self._size_bytes += len(content)
                self._hash.update(content)
        except ISAL_ERROR as error:
            raise BlobDamaged(self._name, f"its gzip member cannot be read ({error})") from error
        if chunk or self._inflate.unused_data:
            raise BlobDamaged(self._name, "there are bytes behind the end of its gzip member")

    def finish(self) -> StoredBlob:
        """Raises BlobDamaged when it is not the content that its name says."""
        if not self._inflate.eof:
            raise BlobDamaged(self._name, f"its content ends after {self._size_bytes} bytes, inside the gzip member")
        if self._hash.hexdigest() != self._name:
            raise BlobDamaged(self._name, "its content has another SHA-256")
        return StoredBlob(self._name, self._size_bytes, self._stored_bytes, self._stored_crc32)


def examine(layout: Layout, sha256: str) -> StoredBlob:
    """Read the object through; what it is. Raises BlobMissing, or BlobDamaged when it is not that content."""
    return examine_file(layout.object_path(sha256), sha256)


def examine_file(path: Path, sha256: str) -> StoredBlob:
    """As `examine`, of an object that lies elsewhere."""
    hasher = StoredHasher(sha256)
    for chunk in file_chunks(path, sha256):
        hasher.feed(chunk)
    return hasher.finish()
