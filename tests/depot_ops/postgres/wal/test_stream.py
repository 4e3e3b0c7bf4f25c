"""Where a streamed log may end: in the middle of a record, and nowhere else."""

import pytest

from depot_ops.postgres.wal.stream import Streamed, stops_short

PAGE, SEGMENT = 8192, 1 << 16
START = 7 * SEGMENT


def streamed(received: int, *, at: int | None = None, length: int = 0, remaining: int = 0) -> Streamed:
    """So many bytes were received, with a record of `length` that begins `at`."""
    content = bytearray(b"\xff" * received + b"\0" * (SEGMENT - received))
    content[16:20] = remaining.to_bytes(4, "little")
    if at is not None:
        content[at : at + 4] = length.to_bytes(4, "little")
    return Streamed(("000000010000000000000007",), START, bytes(content), PAGE)


@pytest.mark.parametrize(
    ("ended", "stream", "short"),
    [
        (1000, streamed(1000), False),  # the last record was received whole
        (1000, streamed(1060, at=1000, length=100), False),  # the beginning of one
        (1000, streamed(1100, at=1000, length=100), False),
        (1000, streamed(1101, at=1000, length=100), True),  # whole, and damaged: there is one behind it
        (1000, streamed(20_000, at=1000, length=0), True),
        (8000, streamed(8192 + 24 + 308, at=8000, length=500), False),  # across a page, which has a header
        (8000, streamed(8192 + 24 + 309, at=8000, length=500), True),
        (2 * PAGE, streamed(2 * PAGE + 24), False),  # a page's header, and no record yet
        (2 * PAGE, streamed(2 * PAGE + 124, at=2 * PAGE + 24, length=100), False),
        (0, streamed(140, at=40, length=100), False),
        (-50, streamed(90, remaining=50), False),  # the end of a record that began in the segment before
        (-50, streamed(91, remaining=50), True),
    ],
)
def test_bytes_behind_the_record_that_could_not_be_read_show_damage(ended, stream, short):
    assert stops_short(stream, START + ended) is short
