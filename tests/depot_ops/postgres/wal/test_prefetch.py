"""What is fetched ahead is what the archive has, and only ever saves time."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from depot_ops.postgres.wal.archive import WalArchive
from depot_ops.postgres.wal.names import parse_wal_name, segment_name
from depot_ops.postgres.wal.prefetch import prefetch, ready_path
from tests.depot_ops.postgres.wal.small_segments import SIZE, small_segment

ENTRY = [sys.executable, "-m", "depot_ops", "wal", "get"]


@pytest.fixture
def archive(archive_root, system_identifier, segments):
    made = WalArchive(archive_root, system_identifier)
    for name, content in segments:
        made.store(name, content)
    return made


@pytest.fixture
def data(tmp_path, primary) -> Path:
    directory = tmp_path / "data"
    (directory / "pg_wal").mkdir(parents=True)
    (directory / "global").mkdir()
    shutil.copy(primary.cluster.data / "global" / "pg_control", directory / "global")
    return directory


@pytest.fixture
def spool(tmp_path) -> Path:
    return tmp_path / "spool"


def get(data, archive, spool, name) -> int:
    command = [*ENTRY, name.name, "pg_wal/RECOVERYXLOG", "--archive", archive.root, "--prefetch", spool]
    return subprocess.run(command, cwd=data, check=False).returncode


def ready(spool, archive, name) -> bool:
    return ready_path(spool, archive.system_identifier, name).exists()


def wait_until_ready(spool, archive, name) -> None:
    deadline = time.monotonic() + 30
    while not ready(spool, archive, name):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_follows_is_there_before_it_is_asked_for(data, archive, spool, segments):
    (first, _), (second, content) = segments[:2]
    assert get(data, archive, spool, first) == 0
    wait_until_ready(spool, archive, second)
    archive.file_path(second).rename(archive.file_path(second).with_suffix(".away"))
    assert get(data, archive, spool, second) == 0
    assert (data / "pg_wal" / "RECOVERYXLOG").read_bytes() == content
    assert not ready(spool, archive, second)


def test_a_damaged_segment_is_never_ready(data, archive, spool, segments):
    (first, _), (second, _) = segments[:2]
    archive.file_path(second).write_bytes(b"damaged")
    assert get(data, archive, spool, first) == 0
    assert get(data, archive, spool, second) == 126
    assert not ready(spool, archive, second)


def test_absence_is_proved_by_the_archive_and_not_by_the_spool(data, archive, spool, segments):
    last = segments[-1][0]
    assert get(data, archive, spool, last) == 0
    absent = type(last)(f"{last.name[:-1]}F", last.kind, last.timeline)
    assert get(data, archive, spool, absent) == 1
    shutil.rmtree(archive.directory)
    assert get(data, archive, spool, absent) == 126


def test_what_nobody_asks_for_any_more_goes(archive, spool, segments):
    first, second = segments[0][0], segments[1][0]
    prefetch(first, archive, spool)
    assert ready(spool, archive, second)
    prefetch(second, archive, spool)
    assert not ready(spool, archive, second)


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: content[:-1] + b"?"])
def test_what_was_damaged_while_it_waited_is_fetched_again(data, archive, spool, segments, damage):
    (first, _), (second, content) = segments[:2]
    prefetch(first, archive, spool)
    waiting = ready_path(spool, archive.system_identifier, second)
    waiting.write_bytes(damage(content))
    assert get(data, archive, spool, second) == 0
    assert (data / "pg_wal" / "RECOVERYXLOG").read_bytes() == content


def test_segments_of_another_size_are_counted_in_that_size(data, archive_root, spool, system_identifier):
    """With segments of 1 MiB, a name counts to FFF where it counts to FF with 16."""
    archive = WalArchive(archive_root, system_identifier)
    names = [parse_wal_name(segment_name(1, number, SIZE)) for number in (0xFFE, 0xFFF, 0x1000)]
    for number, name in zip((0xFFE, 0xFFF, 0x1000), names, strict=True):
        archive.store(name, small_segment(1, number, system_identifier))
    assert get(data, archive, spool, names[0]) == 0
    wait_until_ready(spool, archive, names[2])
    assert get(data, archive, spool, names[2]) == 0
