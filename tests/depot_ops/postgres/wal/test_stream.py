"""What a recovery takes of a stream that goes on meanwhile, and where it may end: in the middle of a record."""

import pytest

from depot_ops.postgres.wal.archive import WalArchive
from depot_ops.postgres.wal.stream import Streamed, stage_streamed, stops_short
from depot_ops.postgres.wal.timelines import TimelinePath

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


def test_what_is_finished_and_handed_over_meanwhile_is_found(segments, system_identifier, tmp_path):
    """The plan saw an archive without the first; the second is finished, the third is being received."""
    (first, _), (second, _), (third, _) = segments
    archive = WalArchive(tmp_path / "archive", system_identifier)
    archive.store(*segments[0])
    stream, staged = tmp_path / "stream", tmp_path / "staged"
    stream.mkdir()
    staged.mkdir()
    (stream / second.name).write_bytes(segments[1][1])
    received = segments[2][1][:20_000]
    (stream / f"{third.name}.partial").write_bytes(received.ljust(16 << 20, b"\0"))
    found = stage_streamed(stream, staged, TimelinePath(1), first.segment_number(), 16 << 20, archive)
    assert found is not None
    assert found.names == (first.name, second.name, third.name)
    assert [(staged / name).read_bytes() for name in found.names[:2]] == [content for _, content in segments[:2]]
    assert found.until == third.segment_number() * (16 << 20) + len(received.rstrip(b"\0"))
