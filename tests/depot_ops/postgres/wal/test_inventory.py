"""What is missing is named, and what is damaged too."""

import pytest

from depot_ops.evidence import Status
from depot_ops.postgres.wal.archive import WalArchive
from depot_ops.postgres.wal.inventory import check_continuity, check_intact
from depot_ops.postgres.wal.names import parse_wal_name, segment_name
from depot_ops.postgres.wal.timelines import UnknownTimeline, newest_path, path_to
from tests.depot_ops.postgres.wal.small_segments import SIZE, SYSTEM, small_segment


@pytest.fixture
def archive(archive_root) -> WalArchive:
    return WalArchive(archive_root, SYSTEM)


def store(archive: WalArchive, timeline: int, *numbers: int) -> None:
    for number in numbers:
        archive.store(parse_wal_name(segment_name(timeline, number, SIZE)), small_segment(timeline, number))


def store_history(archive: WalArchive, timeline: int, *switches: tuple[int, int]) -> None:
    lines = "".join(f"{left}\t0/{position:X}\tno recovery target specified\n" for left, position in switches)
    archive.store(parse_wal_name(f"{timeline:08X}.history"), lines.encode())


def test_without_a_gap(archive):
    store(archive, 1, 3, 4, 5)
    finding = check_continuity(archive)
    assert finding.status is Status.HEALTHY, finding.detail
    assert finding.figures["segments"] == 3


def test_a_gap_in_the_middle_is_named(archive):
    store(archive, 1, 3, 4, 7, 9)
    finding = check_continuity(archive)
    assert finding.status is Status.UNHEALTHY
    assert [segment_name(1, n, SIZE) for n in (5, 6, 8)] == finding.detail.split(". ")[0][9:].split(", ")


def test_a_file_that_went_away_is_a_gap(archive):
    store(archive, 1, 3, 4, 5)
    lost = parse_wal_name(segment_name(1, 4, SIZE))
    archive.file_path(lost).unlink()
    assert lost.name in check_continuity(archive).detail
    assert check_intact(archive).status is Status.UNHEALTHY


def test_the_start_of_the_oldest_backup_is_needed(archive):
    store(archive, 1, 4, 5)
    assert check_continuity(archive, segment_name(1, 4, SIZE)).status is Status.HEALTHY
    assert segment_name(1, 3, SIZE) in check_continuity(archive, segment_name(1, 3, SIZE)).detail


def test_a_timeline_is_whole_up_to_where_it_was_left(archive):
    """Segment 5, in which it was left, is `.partial` on timeline 1 and complete on timeline 2."""
    store_history(archive, 2, (1, 5 * SIZE + 4000))
    store(archive, 1, 3, 4)
    store(archive, 2, 5, 6)
    assert check_continuity(archive).status is Status.HEALTHY


@pytest.mark.parametrize(
    ("first", "second", "missing"), [((3,), (5, 6), (1, 4)), ((3, 4), (6,), (2, 5)), ((3, 4), (5, 7), (2, 6))]
)
def test_a_gap_at_a_switch_is_named(archive, first, second, missing):
    store_history(archive, 2, (1, 5 * SIZE + 4000))
    store(archive, 1, *first)
    store(archive, 2, *second)
    finding = check_continuity(archive)
    assert finding.status is Status.UNHEALTHY
    assert segment_name(*missing, SIZE) in finding.detail


@pytest.mark.parametrize(("oldest", "missing"), [((1, 4), (2, 5)), ((2, 7), (2, 7)), ((2, 9), None), ((1, 3), (1, 3))])
def test_what_a_later_timeline_lost_at_its_start_is_named_by_the_oldest_backup(archive, oldest, missing):
    """Of timeline 2 the archive has segments from 9 on; how much of what is before it is needed, the backup says."""
    store_history(archive, 2, (1, 5 * SIZE + 4000))
    store(archive, 1, 4)
    store(archive, 2, 9, 10)
    finding = check_continuity(archive, segment_name(*oldest, SIZE))
    assert finding.status is (Status.UNHEALTHY if missing else Status.HEALTHY)
    assert missing is None or finding.detail.startswith(f"missing: {segment_name(*missing, SIZE)}")


def test_a_timeline_that_is_lost_altogether_is_named_where_a_backup_is_on_it(archive):
    store_history(archive, 2, (1, 5 * SIZE + 4000))
    store(archive, 2, 5, 6)
    assert check_continuity(archive).status is Status.HEALTHY
    assert check_continuity(archive, segment_name(2, 5, SIZE)).status is Status.HEALTHY
    assert segment_name(1, 4, SIZE) in check_continuity(archive, segment_name(1, 4, SIZE)).detail


def test_partial_segments_and_notes_do_not_count(archive):
    store(archive, 1, 3, 4)
    number = segment_name(1, 9, SIZE)
    archive.store(parse_wal_name(f"{number}.partial"), small_segment(1, 9))
    archive.store(parse_wal_name(f"{number}.00000028.backup"), b"START WAL LOCATION: 0/900028\n")
    assert check_continuity(archive).status is Status.HEALTHY


def test_an_empty_archive_is_unhealthy_and_none_unknown(archive):
    assert check_continuity(archive).status is Status.UNKNOWN
    archive.directory.mkdir(parents=True)
    assert check_continuity(archive).status is Status.UNHEALTHY


def test_only_a_deep_look_finds_a_flipped_byte(archive):
    store(archive, 1, 3, 4)
    path = archive.file_path(parse_wal_name(segment_name(1, 4, SIZE)))
    stored = bytearray(path.read_bytes())
    stored[len(stored) // 2] ^= 1
    path.write_bytes(stored)
    assert check_intact(archive).status is Status.HEALTHY
    finding = check_intact(archive, deep=True)
    assert finding.status is Status.UNHEALTHY
    assert path.name in finding.detail


def test_the_path_of_a_recovery(archive):
    store_history(archive, 2, (1, 5 * SIZE + 4000))
    store_history(archive, 3, (1, 5 * SIZE + 4000), (2, 8 * SIZE))
    path = path_to(archive, 3)
    assert path.segment_names(4, 9, SIZE) == [
        segment_name(timeline, number, SIZE) for timeline, number in [(1, 4), (2, 5), (2, 6), (2, 7), (3, 8), (3, 9)]
    ]
    assert path.contains(1, 5 * SIZE)
    assert not path.contains(1, 6 * SIZE)


def test_the_newest_timeline_that_a_backup_is_on(archive):
    store_history(archive, 2, (1, 5 * SIZE))
    store(archive, 2, 5, 6)
    assert newest_path(archive, 1, 4 * SIZE).timeline == 2
    store(archive, 1, 5, 6, 7)
    assert newest_path(archive, 1, 6 * SIZE).timeline == 1  # a backup after the point at which 2 branched off


def test_a_timeline_without_history_is_refused(archive):
    store(archive, 3, 5)
    with pytest.raises(UnknownTimeline, match=r"00000003\.history"):
        newest_path(archive, 1, 4 * SIZE)
