"""Many objects in one stream: for each, 32 bytes SHA-256 of its content, 8 bytes big-endian length, then the bytes.

There is no trailer: whoever reads knows from HTTP how long the body is.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

MEDIA_TYPE = "application/vnd.asset-depot.pack"
# The same framing, with each object in its stored gzip form.
GZIP_MEDIA_TYPE = "application/vnd.asset-depot.pack+gzip"
# Larger content goes alone: a pack is all or nothing, and is sent again as a whole.
MAX_ENTRY_BYTES = 64 << 20

_HEADER = struct.Struct(">32sQ")
HEADER_BYTES = _HEADER.size


class PackError(Exception):
    """The stream is not a pack, or ends too early."""


@dataclass(frozen=True, slots=True)
class EntryStart:
    sha256: str
    length_bytes: int


@dataclass(frozen=True, slots=True)
class EntryData:
    data: memoryview


@dataclass(frozen=True, slots=True)
class EntryEnd:
    pass


def encode_header(sha256: str, length_bytes: int) -> bytes:
    """The 40 bytes before an entry's own."""
    return _HEADER.pack(bytes.fromhex(sha256), length_bytes)


class PackReader:
    """Takes a pack in pieces of any size and tells what is in them."""

    def __init__(self) -> None:
        self._header = b""
        self._left_bytes: int | None = None  # of the entry being read; None between entries

    def feed(self, data: bytes) -> Iterator[EntryStart | EntryData | EntryEnd]:
        """Raises PackError for an entry that is too long."""
        view, position = memoryview(data), 0
        while True:
            if self._left_bytes is None:
                wanted = HEADER_BYTES - len(self._header)
                self._header += view[position : position + wanted]
                position += wanted
                if len(self._header) < HEADER_BYTES:
                    return
                yield self._start()
            taken = min(self._left_bytes or 0, len(view) - position)
            if taken > 0:
                yield EntryData(view[position : position + taken])
                position += taken
                self._left_bytes = (self._left_bytes or 0) - taken
            if self._left_bytes:
                return
            self._left_bytes = None
            yield EntryEnd()

    def _start(self) -> EntryStart:
        sha256, length_bytes = _HEADER.unpack(self._header)
        if length_bytes > MAX_ENTRY_BYTES:
            raise PackError(f"an entry has {length_bytes} bytes, more than {MAX_ENTRY_BYTES}; send such content alone")
        self._header, self._left_bytes = b"", length_bytes
        return EntryStart(sha256.hex(), length_bytes)

    def finish(self) -> None:
        """Raises PackError when the stream ended inside an entry."""
        if self._left_bytes is not None or self._header:
            raise PackError("it ends in the middle of an entry")
