"""Bytes out: 200, 206, 304, 416, and never wrong ones."""

import asyncio
import base64
import re
from collections.abc import Iterator, Sequence

import structlog
from fastapi import Request
from fastapi.responses import Response, StreamingResponse
from starlette.concurrency import iterate_in_threadpool

from depot_api.blobstore import pack
from depot_api.blobstore.errors import BlobArchived, BlobDamaged, BlobMissing, BlobUnreachable
from depot_api.blobstore.layout import StoredBlob
from depot_api.blobstore.store import BlobStore
from depot_api.metrics import DAMAGED_READS, DOWNLOADED_BYTES, EVICTED_READS
from depot_api.problems import ContentDamaged, RangeNotSatisfiable

_log = structlog.get_logger()
CHUNK_BYTES = 1 << 20
# No file has more bytes than 18 digits can count.
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


async def content_response(request: Request, store: BlobStore, blob: StoredBlob) -> Response:
    """The content of `blob` as the request wants it: gzip as it lies, identity, or a range of the identity."""
    headers = _headers(blob)
    if _matches(request.headers.get("if-none-match", ""), blob):
        return Response(status_code=304, headers=headers)
    wanted = _range(request.headers.get("range", ""), blob)
    if wanted:
        start, end = wanted
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{blob.size_bytes}"
        return await _stream(store, blob, headers, wanted, 206)
    if accepts_gzip(request.headers.get("accept-encoding", "")):
        headers |= {"Content-Encoding": "gzip", "ETag": f'"{blob.sha256}-gzip"'}
        return await _stream(store, blob, headers, None, 200)
    return await _stream(store, blob, headers, (0, blob.size_bytes), 200)


def _headers(blob: StoredBlob) -> dict[str, str]:
    digest = f"sha-256=:{base64.b64encode(bytes.fromhex(blob.sha256)).decode()}:"
    return {
        "ETag": f'"{blob.sha256}"',
        "Accept-Ranges": "bytes",
        "Vary": "Accept-Encoding",
        "Cache-Control": "private, max-age=31536000, immutable",
        "Content-Disposition": "attachment",
        # RFC 9530 speaks of the coding that is sent; our hash is of the content, whatever its coding.
        "Unencoded-Digest": digest,
    }


async def _stream(
    store: BlobStore, blob: StoredBlob, headers: dict[str, str], span: tuple[int, int] | None, status: int
) -> Response:
    """`span` of the identity, or the stored gzip. The first chunk is read before the status is sent."""
    length = blob.stored_bytes if span is None else span[1] - span[0]
    chunks = _chunks(store, blob, span)
    first = await asyncio.to_thread(_first, chunks, blob)
    headers["Content-Length"] = str(length)
    if span == (0, blob.size_bytes):
        headers["Repr-Digest"] = headers["Unencoded-Digest"]
    body = iterate_in_threadpool(_counted(first, chunks))
    return StreamingResponse(body, status, headers, media_type="application/octet-stream")


def _chunks(store: BlobStore, blob: StoredBlob, span: tuple[int, int] | None) -> Iterator[bytes]:
    """What is damaged or evicted is fetched from another copy. What had begun by then is cut, never completed."""
    sent = False
    try:
        for chunk in _stored_chunks(store, blob, span):
            yield chunk
            sent = True
    except (BlobDamaged, BlobMissing) as error:
        if not _healed(store, blob, error) or sent:
            raise
        yield from _stored_chunks(store, blob, span)


def _healed(store: BlobStore, blob: StoredBlob, error: BlobDamaged | BlobMissing) -> bool:
    try:
        healed = store.heal(blob)
    except BlobArchived:
        EVICTED_READS.labels("restoring").inc()
        raise
    except BlobUnreachable as unreachable:
        EVICTED_READS.labels("unavailable").inc()
        _log.warning("object_cannot_be_fetched", sha256=blob.sha256, seen=str(unreachable))
        raise
    if healed and blob.is_evicted:
        EVICTED_READS.labels("fetched").inc()
        return True
    DAMAGED_READS.labels("yes" if healed else "no").inc()
    _log.warning("damaged_object_read", sha256=blob.sha256, seen=str(error), healed=healed)
    return healed


def _stored_chunks(store: BlobStore, blob: StoredBlob, span: tuple[int, int] | None) -> Iterator[bytes]:
    reader = store.open(blob)
    if span is None:
        yield from reader.stored_chunks(CHUNK_BYTES)
    else:
        yield from reader.content_chunks(*span)


def _first(chunks: Iterator[bytes], blob: StoredBlob) -> bytes:
    try:
        return next(chunks, b"")
    except (BlobDamaged, BlobMissing) as error:
        raise ContentDamaged(f"{error}. Nothing was sent. Whoever has the file can send it again.") from error


def _counted(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    DOWNLOADED_BYTES.inc(len(first))
    yield first
    for chunk in rest:
        DOWNLOADED_BYTES.inc(len(chunk))
        yield chunk


async def pack_response(store: BlobStore, blobs: Sequence[StoredBlob]) -> Response:
    """Many objects in one answer, each in its stored form. Damage found later than at the start cuts the answer."""
    damaged = await asyncio.to_thread(_damaged, store, blobs)
    if damaged:
        raise ContentDamaged("Stored objects are missing or have the wrong size.", damaged=damaged)
    headers = {"Content-Length": str(sum(blob.stored_bytes + pack.HEADER_BYTES for blob in blobs))}
    body = iterate_in_threadpool(_gathered(_packed(store, blobs)))
    return StreamingResponse(body, headers=headers, media_type=pack.GZIP_MEDIA_TYPE)


def _damaged(store: BlobStore, blobs: Sequence[StoredBlob]) -> list[str]:
    """Those that are not there in their size, and that no other copy heals.

    Raises BlobArchived for all that an archive has, so that it is asked for all of them at once.
    """
    damaged, archived = [], []
    for blob in blobs:
        try:
            if not store.is_intact(blob) and not _healed(store, blob, BlobDamaged(blob.sha256, "missing or cut")):
                damaged.append(blob.sha256)
        except BlobArchived:
            archived.append(blob.sha256)
    if archived and not damaged:
        raise BlobArchived(archived)
    return damaged


def _packed(store: BlobStore, blobs: Sequence[StoredBlob]) -> Iterator[bytes]:
    for blob in blobs:
        yield pack.encode_header(blob.sha256, blob.stored_bytes)
        yield from _chunks(store, blob, None)


def _gathered(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Small objects share a chunk: each chunk costs a hop between threads and a write to the socket."""
    gathered: list[bytes] = []
    size_bytes = 0
    for piece in pieces:
        gathered.append(piece)
        size_bytes += len(piece)
        if size_bytes >= CHUNK_BYTES:
            DOWNLOADED_BYTES.inc(size_bytes)
            yield b"".join(gathered)
            gathered, size_bytes = [], 0
    DOWNLOADED_BYTES.inc(size_bytes)
    yield b"".join(gathered)


def accepts_gzip(accept_encoding: str) -> bool:
    """RFC 9110 section 12.5.3, as far as gzip and * go."""
    weights = {}
    for part in accept_encoding.lower().split(","):
        coding, _, parameters = part.partition(";")
        weights[coding.strip()] = parameters.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return weights.get("gzip", weights.get("*", False))


def _matches(if_none_match: str, blob: StoredBlob) -> bool:
    tags = {tag.strip().removeprefix("W/").strip('"') for tag in if_none_match.split(",")}
    return bool(tags & {"*", blob.sha256, f"{blob.sha256}-gzip"})


def _range(header: str, blob: StoredBlob) -> tuple[int, int] | None:
    """First and last-plus-one byte. Several ranges, or what cannot be read, mean the whole (RFC 9110 section 14.2)."""
    match = _RANGE.fullmatch(header.strip())
    if not match or not any(match.groups()):
        return None
    first, last = match.groups()
    if first:
        start, end = int(first), min(int(last) + 1 if last else blob.size_bytes, blob.size_bytes)
        if last and int(last) < int(first):
            return None
    else:
        start, end = max(0, blob.size_bytes - int(last)), blob.size_bytes
    if start >= end:
        raise RangeNotSatisfiable(f"The content has {blob.size_bytes} bytes; {header} lies outside.")
    return start, end
