"""What the bytes of a log file must be, given its name: to be looked at before the only other copy is removed."""

import re
import struct
from typing import NamedTuple

from depot_ops.postgres.wal.names import WalKind, WalName, format_lsn

# XLOG_PAGE_MAGIC of each major version.
MAJOR_OF_MAGIC = {0xD110: 15, 0xD113: 16, 0xD116: 17, 0xD118: 18}
LONG_HEADER = 0x0002
# XLogLongPageHeaderData: magic, info, timeline, address, remaining length, padding, system, segment and page size.
_LONG_HEADER = struct.Struct("=HHIQI4xQII")
HEADER_BYTES = _LONG_HEADER.size
_SHORT_HEADER_BYTES = 24
_ALIGNMENT = 8
# XLogRecord, of which a switch of segments has nothing but the header: length, info, resource manager.
_RECORD = struct.Struct("=I12xBB2x4x")
_INFO_MASK = 0xF0
_SWITCH = 0x40
_RM_XLOG = 0
_HISTORY_LINE = re.compile(r"\s*(\d+)\s+([0-9A-Fa-f]+)/([0-9A-Fa-f]+)(?:\s.*)?")


class BadWalFile(Exception):
    """The bytes are not what the name says; the message says what was seen."""


class ForeignSegment(BadWalFile):
    """The segment was written by another cluster."""


class SegmentHeader(NamedTuple):
    """What the first page of a segment says about it."""

    major: int
    timeline: int
    address: int
    system_identifier: int
    segment_size_bytes: int
    page_size_bytes: int


class Switch(NamedTuple):
    """A timeline was left at `position` for the next one."""

    timeline: int
    position: int


def read_header(name: str, content: bytes) -> SegmentHeader:
    """Read the first page's header. Raises BadWalFile."""
    if len(content) < _LONG_HEADER.size:
        raise BadWalFile(f"{name} has {len(content)} bytes, too few for a segment: it was not written whole")
    magic, info, timeline, address, _, system, segment_size, page_size = _LONG_HEADER.unpack_from(content)
    if magic == 0:
        raise BadWalFile(f"{name} starts with zeros: it was lost on its way, or the server never wrote it")
    if magic not in MAJOR_OF_MAGIC:
        majors = ", ".join(str(major) for major in MAJOR_OF_MAGIC.values())
        raise BadWalFile(f"{name} has the page magic {magic:04X}, which is of none of PostgreSQL {majors}")
    if not info & LONG_HEADER:
        raise BadWalFile(f"{name} does not start as a segment does, but in the middle of one")
    return SegmentHeader(MAJOR_OF_MAGIC[magic], timeline, address, system, segment_size, page_size)


def check_owner(name: WalName, header: SegmentHeader, system_identifier: int) -> None:
    """Raises ForeignSegment."""
    if header.system_identifier != system_identifier:
        raise ForeignSegment(
            f"{name.name} is of the cluster {header.system_identifier}, not of {system_identifier}: find out which"
            " other server writes to the same place, and give it its own"
        )


def check_segment(name: WalName, content: bytes, system_identifier: int | None = None) -> SegmentHeader:
    """Is `content` the whole segment `name`, every page of it, and of this cluster? Raises BadWalFile.

    The first pages of a timeline's first segment are copied from the timeline before it and keep its number: whether
    this is that segment, only the timeline's history can say.
    """
    header = check_start(name, content, system_identifier)
    start, page = header.address, header.page_size_bytes
    used = _used_pages(name, content, page)
    view = memoryview(content)
    addresses = view.cast("Q")[1 : used * page // 8 : page // 8].tolist()
    _check_pages(name, "the address", addresses, [start + number * page for number in range(used)])
    magics = view.cast("H")[: used * page // 2 : page // 2].tolist()
    _check_pages(name, "the magic", magics, magics[:1] * used)
    timelines = view.cast("I")[1 : used * page // 4 : page // 4].tolist()
    if timelines[-1] > name.timeline or timelines != sorted(timelines):
        raise BadWalFile(f"{name.name} holds pages of timeline {timelines[-1]}, the name says {name.timeline}")
    return header


def check_start(name: WalName, content: bytes, system_identifier: int | None = None) -> SegmentHeader:
    """Does `content` start as the segment `name` of this cluster does, and has it its size? Raises BadWalFile."""
    header = read_header(name.name, content)
    if system_identifier is not None:
        check_owner(name, header, system_identifier)
    if len(content) != header.segment_size_bytes:
        raise BadWalFile(
            f"{name.name} has {len(content)} bytes, its header says {header.segment_size_bytes}: it was not written"
            " whole"
        )
    _check_address(name, header)
    return header


def _check_address(name: WalName, header: SegmentHeader) -> None:
    size, page = header.segment_size_bytes, header.page_size_bytes
    if not (_is_power_of_two(size) and _is_power_of_two(page) and page < size):
        raise BadWalFile(f"{name.name} has a damaged header: segments of {size} bytes in pages of {page}")
    try:
        start = name.segment_number(size) * size
    except ValueError as error:
        raise BadWalFile(str(error)) from None
    if header.address != start:
        raise BadWalFile(
            f"{name.name} holds the log from {format_lsn(header.address)}, the name says {format_lsn(start)}"
        )


def _used_pages(name: WalName, content: bytes, page: int) -> int:
    """How many pages have something in them. Only after a switch of segments may the others be empty."""
    end = -(-len(content.rstrip(b"\0")) // _ALIGNMENT) * _ALIGNMENT
    used = -(-end // page)
    if used * page == len(content):
        return used
    on_last_page = end - (used - 1) * page - _SHORT_HEADER_BYTES
    record = content[end - min(on_last_page, _RECORD.size) : end]
    if len(record) < _RECORD.size:  # it began on the page before
        before = (used - 1) * page
        record = content[before - _RECORD.size + len(record) : before] + record
    length, info, resource_manager = _RECORD.unpack(record)
    if (length, info & _INFO_MASK, resource_manager) != (_RECORD.size, _SWITCH, _RM_XLOG):
        raise BadWalFile(
            f"{name.name} is empty from page {used} on, and no switch of segments is before it: it was not written"
            " whole"
        )
    return used


def _check_pages(name: WalName, what: str, seen: list[int], expected: list[int]) -> None:
    if seen == expected:
        return
    page = next(i for i, (a, b) in enumerate(zip(seen, expected, strict=True)) if a != b)
    state = "is empty" if seen[page] == 0 else f"has {what} {seen[page]:X} instead of {expected[page]:X}"
    raise BadWalFile(f"page {page} of {name.name} {state}: the segment was not written whole")


def _is_power_of_two(number: int) -> bool:
    return number >= 512 and number & (number - 1) == 0  # noqa: PLR2004 - nothing in a log is smaller


def parse_history(name: str, content: bytes) -> list[Switch]:
    """The switches that led to the timeline of a history file, oldest first. Raises BadWalFile."""
    switches: list[Switch] = []
    for line in content.decode(errors="backslashreplace").splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _HISTORY_LINE.fullmatch(line)
        if match is None:
            raise BadWalFile(f"{name} has a line that is none of a history file: {line[:100]!r}")
        switches.append(Switch(int(match[1]), int(match[2], 16) << 32 | int(match[3], 16)))
    timelines = [switch.timeline for switch in switches] + [int(name[:8], 16)]
    if not switches or sorted(set(timelines)) != timelines:
        raise BadWalFile(f"{name} names no timelines that led to {timelines[-1]}: it is damaged")
    return switches


def check_content(name: WalName, content: bytes, system_identifier: int) -> SegmentHeader | None:
    """Is `content` what `name` says? Raises BadWalFile. A partial segment ends in what its file held before."""
    if name.kind is WalKind.SEGMENT:
        return check_segment(name, content, system_identifier)
    if name.kind is WalKind.PARTIAL:
        header = read_header(name.name, content)
        check_owner(name, header, system_identifier)
        _check_address(name, header)
    elif name.kind is WalKind.HISTORY:
        parse_history(name.name, content)
    elif not content.startswith(b"START WAL LOCATION: "):
        raise BadWalFile(f"{name.name} is no note on a base backup")
    return None
