"""Segments that no server wrote: whole by every page, and a sixteenth of the usual size."""

import struct

SYSTEM = 7000000000000000001
SIZE = 1 << 20
PAGE = 8192


def small_segment(timeline: int, number: int, system: int = SYSTEM) -> bytes:
    """A segment of one MiB, whose pages have nothing but their headers."""
    start = number * SIZE
    first = struct.pack("=HHIQI4xQII", 0xD118, 2, timeline, start, 0, system, SIZE, PAGE)
    pages = [struct.pack("=HHIQI4x", 0xD118, 0, timeline, start + at, 0) for at in range(PAGE, SIZE, PAGE)]
    return b"".join(page.ljust(PAGE, b"\0") for page in [first, *pages])
