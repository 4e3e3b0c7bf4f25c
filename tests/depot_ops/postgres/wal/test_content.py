"""A segment is what its name says, page by page, or it is refused with the reason."""

import struct

import pytest

from depot_ops.postgres.wal.content import BadWalFile, ForeignSegment, Switch, check_segment, parse_history
from depot_ops.postgres.wal.names import WalKind, format_lsn, parse_lsn, parse_wal_name, segment_name

SEGMENT = 16 << 20


@pytest.mark.parametrize(
    ("name", "kind", "timeline"),
    [
        ("000000010000000000000001", WalKind.SEGMENT, 1),
        ("0000000A00000012000000FF.partial", WalKind.PARTIAL, 10),
        ("00000002.history", WalKind.HISTORY, 2),
        ("000000010000000000000002.00000028.backup", WalKind.BACKUP, 1),
    ],
)
def test_names(name, kind, timeline):
    parsed = parse_wal_name(name)
    assert (parsed.kind, parsed.timeline, parsed.name) == (kind, timeline, name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "00000001000000000000000",
        "000000010000000000000001.gz",
        "archtemp.000000010000000000000001.1.2",
        "00000000.history",
        "00000001000000000000000a",
        "../00000001.history",
    ],
)
def test_what_is_no_name_of_the_log(name):
    assert parse_wal_name(name) is None


@pytest.mark.parametrize("segment_size", [1 << 20, 16 << 20, 1 << 30])
def test_a_number_and_its_name_agree(segment_size):
    for number in (1, 255, 256, 4095, 4096, 1 << 22):
        assert parse_wal_name(segment_name(3, number, segment_size)).segment_number(segment_size) == number


def test_a_name_beyond_its_log_is_no_segment():
    with pytest.raises(ValueError, match="no name of a segment"):
        parse_wal_name("000000010000000000000100").segment_number(16 << 20)


def test_positions():
    assert parse_lsn("16/B374D848") == 0x16B374D848
    assert format_lsn(0x16B374D848) == "16/B374D848"
    with pytest.raises(ValueError, match="not a position"):
        parse_lsn("latest")


def test_real_segments_are_good(segments, system_identifier, primary):
    for name, content in segments:
        header = check_segment(name, content, system_identifier)
        assert (header.major, header.timeline) == (primary.cluster.binaries.major, 1)


@pytest.mark.parametrize("filler_bytes", range(7900, 8260, 8))
def test_a_switch_may_lie_across_pages(primary, system_identifier, filler_bytes):
    """Whatever lies before it: what a server finishes is accepted."""
    name = primary.finish_segment(filler_bytes)
    check_segment(parse_wal_name(name), (primary.spool / name).read_bytes(), system_identifier)


def damaged(content: bytes, offset: int, replacement: bytes) -> bytes:
    return content[:offset] + replacement + content[offset + len(replacement) :]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda c: bytes(SEGMENT), "starts with zeros"),
        (lambda c: c[: SEGMENT // 2], "not written whole"),
        (lambda c: c + bytes(8192), "not written whole"),
        (lambda c: b"", "too few"),
        (lambda c: c[: 8192 * 5] + bytes(SEGMENT - 8192 * 5), "empty from page 5 on"),
        (lambda c: c[: 8192 * 5] + bytes(8192) + c[8192 * 6 :], "page 5 .* is empty"),
        (lambda c: damaged(c, 0, b"\x01\x02"), "magic 0201"),
        (lambda c: damaged(c, 8192 * 7 + 8, b"\xff"), "page 7 .* address"),
        (lambda c: c[8192:] + c[:8192], "in the middle"),
        (lambda c: damaged(c, 32, struct.pack("=I", 12345)), "12345"),
    ],
    ids=["zeros", "half", "longer", "empty", "zero-tail", "zero-page", "magic", "address", "rotated", "size"],
)
def test_what_is_no_whole_segment(segments, system_identifier, damage, reason):
    name, content = segments[0]
    with pytest.raises(BadWalFile, match=reason):
        check_segment(name, damage(content), system_identifier)


def test_the_segment_of_another_name(segments, system_identifier):
    with pytest.raises(BadWalFile, match="holds the log from"):
        check_segment(segments[0][0], segments[1][1], system_identifier)


def test_the_segment_of_a_later_timeline(segments, system_identifier):
    name, content = segments[0]
    later = content[:4] + struct.pack("=I", 7) + content[8:]
    with pytest.raises(BadWalFile, match="timeline"):
        check_segment(name, later, system_identifier)


def test_the_segment_of_another_cluster(segments, system_identifier):
    name, content = segments[0]
    with pytest.raises(ForeignSegment, match="which other server"):
        check_segment(name, content, system_identifier + 1)


def test_a_history():
    content = b'1\t0/3000000\tno recovery target specified\n\n2\t0/5000060\tat restore point "x"\n'
    assert parse_history("00000003.history", content) == [Switch(1, 0x3000000), Switch(2, 0x5000060)]


@pytest.mark.parametrize("content", [b"", b"nonsense\n", b"3\t0/3000000\tx\n", b"2\t0/1\tx\n1\t0/2\tx\n", b"\xff\xfe"])
def test_a_damaged_history(content):
    with pytest.raises(BadWalFile, match=r"00000003\.history"):
        parse_history("00000003.history", content)
