"""Bytes in: from a request into the blob store. One writer for all ways in, and no transaction while they move."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

import structlog

from depot_api.blobstore import pack
from depot_api.blobstore.errors import HashMismatch as WrongHash
from depot_api.blobstore.errors import StorageFull as NoRoom
from depot_api.blobstore.layout import StoredBlob
from depot_api.blobstore.store import BlobStore
from depot_api.blobstore.writer import BlobWriter, StagedBlob
from depot_api.metrics import UPLOADED_BYTES
from depot_api.problems import HashMismatch, Invalid, StorageFull, Unavailable

_log = structlog.get_logger()
# Network chunks are gathered up to this, so that a hop to a thread is paid per piece and not per packet.
PIECE_BYTES = 1 << 20


class Sink(Protocol):
    """Takes a body's bytes in order; used from one thread at a time."""

    def feed(self, data: bytes) -> None: ...
    def finish(self) -> list[StagedBlob]: ...
    def abort(self) -> None: ...


class ObjectSink:
    """The body is one object."""

    def __init__(self, store: BlobStore, expected_sha256: str | None) -> None:
        self._writer = store.writer(expected_sha256)

    def feed(self, data: bytes) -> None:
        self._writer.write(data)

    def finish(self) -> list[StagedBlob]:
        return [self._writer.finish()]

    def abort(self) -> None:
        self._writer.abort()


class PackSink:
    """The body is a pack of objects; all of them are stored, or none."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._reader = pack.PackReader()
        self._writer: BlobWriter | None = None
        self._staged: list[StagedBlob] = []

    def feed(self, data: bytes) -> None:
        for event in self._reader.feed(data):
            if isinstance(event, pack.EntryStart):
                self._writer = self._store.writer(event.sha256)
            elif isinstance(event, pack.EntryData):
                assert self._writer is not None
                self._writer.write(event.data)
            else:
                assert self._writer is not None
                self._staged.append(self._writer.finish())
                self._writer = None

    def finish(self) -> list[StagedBlob]:
        self._reader.finish()
        return self._staged

    def abort(self) -> None:
        if self._writer is not None:
            self._writer.abort()
        self._store.discard(self._staged)


async def receive(store: BlobStore, body: AsyncIterator[bytes], make_sink: Callable[[], Sink]) -> Sequence[StoredBlob]:
    """Everything the body holds, durable. Raises Problem, and then nothing is stored."""
    try:
        sink = await asyncio.to_thread(make_sink)
        try:
            await _pump(body, sink)
            staged = await asyncio.to_thread(sink.finish)
        except BaseException:
            await asyncio.shield(asyncio.to_thread(sink.abort))
            raise
        return await asyncio.to_thread(store.commit, staged)
    except WrongHash as error:
        raise HashMismatch(
            f"The bytes sent have the SHA-256 {error.actual}, not {error.expected}. Nothing was stored. "
            "Send them again; if it happens again, the file changes while it is read."
        ) from None
    except pack.PackError as error:
        raise Invalid(f"The pack cannot be read: {error}. Nothing was stored.") from None
    except NoRoom:
        raise StorageFull("The blob store has no room left. Nothing was stored. Free space, then send again.") from None
    except OSError as error:
        _log.exception("blob_store_cannot_be_written", seen=str(error))
        raise Unavailable("The blob store cannot be written to. Nothing was stored. GET /health says more.") from None


async def _pump(body: AsyncIterator[bytes], sink: Sink) -> None:
    """The network is read while a thread hashes, compresses and writes what came before."""
    gathered: list[bytes] = []
    size_bytes = 0
    working: asyncio.Task[None] | None = None
    try:
        async for chunk in body:
            gathered.append(chunk)
            size_bytes += len(chunk)
            if size_bytes < PIECE_BYTES:
                continue
            if working:
                await working
            working = asyncio.create_task(asyncio.to_thread(_feed, sink, gathered))
            gathered, size_bytes = [], 0
        if working:
            await working
        await asyncio.to_thread(_feed, sink, gathered)
    except BaseException:
        # The sink is used by one thread at a time: whoever aborts it waits for the piece in work.
        if working:
            await asyncio.wait({working})
        raise


def _feed(sink: Sink, chunks: list[bytes]) -> None:
    """Chunk by chunk: joining them first would copy every byte once more."""
    for chunk in chunks:
        UPLOADED_BYTES.inc(len(chunk))
        sink.feed(chunk)
