"""What is fetched ahead is what the archive has, and only ever saves time."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from depot_ops.postgres.wal.archive import WalArchive
from depot_ops.postgres.wal.prefetch import prefetch, ready_path

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
