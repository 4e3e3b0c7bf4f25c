"""Finding out what an object is when no record of it is left."""

from pathlib import Path

from isal import isal_zlib

from depot_api.blobstore.errors import BlobMissing
from depot_api.blobstore.layout import Layout, StoredBlob
from depot_api.blobstore.reader import CHUNK_BYTES, BlobReader


def examine(layout: Layout, sha256: str, size_bytes: int) -> StoredBlob:
    """Read the object through; what it is. Raises BlobMissing, or BlobDamaged when it is not that content."""
    path = layout.object_path(sha256)
    stored_bytes, crc32 = _stored_form(path, sha256)
    blob = StoredBlob(sha256, size_bytes, stored_bytes, crc32)
    for _ in BlobReader(path, blob).content_chunks():
        pass
    return blob


def _stored_form(path: Path, sha256: str) -> tuple[int, int]:
    stored_bytes = crc32 = 0
    try:
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(CHUNK_BYTES):
                stored_bytes += len(chunk)
                crc32 = isal_zlib.crc32(chunk, crc32)
    except FileNotFoundError:
        raise BlobMissing(sha256) from None
    return stored_bytes, crc32
