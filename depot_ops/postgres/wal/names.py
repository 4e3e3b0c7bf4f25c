"""Names of write-ahead log files, and where in the log each one lies."""

import re
from enum import StrEnum
from typing import NamedTuple

DEFAULT_SEGMENT_SIZE_BYTES = 16 << 20

_NAME = re.compile(
    r"(?P<timeline>[0-9A-F]{8})"
    r"(?:(?P<history>\.history)|(?P<position>[0-9A-F]{16})(?:(?P<partial>\.partial)|(?P<backup>\.[0-9A-F]{8}\.backup))?)"
)


class WalKind(StrEnum):
    """What a file of the log is."""

    SEGMENT = "segment"
    PARTIAL = "partial"
    """The unfinished last segment of a timeline that a promotion ended. Recovery never asks for it."""
    HISTORY = "history"
    """Where a timeline branched off."""
    BACKUP = "backup"
    """A note of the server on a base backup: where it began and ended."""


class WalName(NamedTuple):
    """A file of the log, told by its name alone."""

    name: str
    kind: WalKind
    timeline: int

    @property
    def is_whole_segment(self) -> bool:
        return self.kind is WalKind.SEGMENT

    def segment_number(self, segment_size_bytes: int = DEFAULT_SEGMENT_SIZE_BYTES) -> int:
        """How many segments of this size lie before it. Raises ValueError for a name that this size cannot have."""
        log, segment = int(self.name[8:16], 16), int(self.name[16:24], 16)
        if segment >= segments_per_log(segment_size_bytes):
            raise ValueError(f"{self.name} is no name of a segment of {segment_size_bytes} bytes")
        return log * segments_per_log(segment_size_bytes) + segment


def parse_wal_name(name: str) -> WalName | None:
    """What `name` stands for; None when it is no name of a log file."""
    match = _NAME.fullmatch(name)
    if match is None or (timeline := int(match["timeline"], 16)) == 0:
        return None
    if match["history"]:
        kind = WalKind.HISTORY
    elif match["partial"]:
        kind = WalKind.PARTIAL
    else:
        kind = WalKind.BACKUP if match["backup"] else WalKind.SEGMENT
    return WalName(name, kind, timeline)


def segment_name(timeline: int, number: int, segment_size_bytes: int = DEFAULT_SEGMENT_SIZE_BYTES) -> str:
    """The name of segment `number` on `timeline`."""
    log, segment = divmod(number, segments_per_log(segment_size_bytes))
    return f"{timeline:08X}{log:08X}{segment:08X}"


def history_name(timeline: int) -> str:
    """The name of the file that says where `timeline` branched off."""
    return f"{timeline:08X}.history"


def segments_per_log(segment_size_bytes: int) -> int:
    """A name counts in logs of 4 GiB, and in segments within one."""
    return (1 << 32) // segment_size_bytes


def parse_lsn(text: str) -> int:
    """A position in the log, as the server writes it (`16/B374D848`), in bytes. Raises ValueError."""
    match = re.fullmatch(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})", text)
    if match is None:
        raise ValueError(f"{text!r} is not a position in the log, such as 16/B374D848")
    return int(match[1], 16) << 32 | int(match[2], 16)


def format_lsn(position: int) -> str:
    """A position in the log as the server writes it."""
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"
