"""What a server is told: a wrong answer to `get` ends a recovery early, and nobody notices."""

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from depot_ops.postgres.wal.archive import WalArchive
from depot_ops.postgres.wal.inventory import check_intact

ENTRY = [sys.executable, "-m", "depot_ops", "wal"]


@pytest.fixture
def data(tmp_path, primary, segments) -> Path:
    """A data directory as far as the hooks look at one, with finished segments in its pg_wal."""
    directory = tmp_path / "data"
    (directory / "pg_wal").mkdir(parents=True)
    (directory / "global").mkdir()
    shutil.copy(primary.cluster.data / "global" / "pg_control", directory / "global")
    for name, content in segments:
        (directory / "pg_wal" / name.name).write_bytes(content)
    return directory


def run(data: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*ENTRY, *arguments], cwd=data, capture_output=True, text=True, check=False)


def push(data, archive_root, name) -> subprocess.CompletedProcess[str]:
    return run(data, "push", f"pg_wal/{name}", "--archive", archive_root)


def get(data, archive_root, name) -> subprocess.CompletedProcess[str]:
    return run(data, "get", name, "pg_wal/RECOVERYXLOG", "--archive", archive_root)


def test_there_and_back(data, archive_root, segments):
    name, content = segments[0]
    for _ in range(2):
        assert push(data, archive_root, name.name).returncode == 0
    assert get(data, archive_root, name.name).returncode == 0
    assert (data / "pg_wal" / "RECOVERYXLOG").read_bytes() == content
    assert not list((data / "pg_wal").glob(".*"))


def test_a_history_needs_the_data_directory(data, archive_root, tmp_path):
    history = data / "pg_wal" / "00000002.history"
    history.write_text("1\t0/3000000\tno recovery target specified\n")
    assert push(data, archive_root, history.name).returncode == 0
    assert get(data, archive_root, history.name).returncode == 0
    (data / "global" / "pg_control").unlink()
    assert push(data, archive_root, history.name).returncode == 1


def test_other_content_is_not_pushed(data, archive_root, segments):
    name, content = segments[0]
    push(data, archive_root, name.name)
    (data / "pg_wal" / name.name).write_bytes(content[:4000] + bytes([content[4000] ^ 1]) + content[4001:])
    refused = push(data, archive_root, name.name)
    assert refused.returncode == 1
    assert "other content" in refused.stderr


@pytest.mark.parametrize("arguments", [(), ("nonsense",), ("pg_wal/missing",), ("pg_wal/000000010000000000000077",)])
def test_what_cannot_be_pushed_is_tried_again(data, archive_root, arguments):
    assert run(data, "push", *arguments, "--archive", archive_root).returncode == 1


def test_only_proven_absence_is_absence(data, archive_root, segments, system_identifier):
    (name, _), (absent, _), _ = segments
    assert get(data, archive_root, name.name).returncode == 126  # no archive: not mounted?
    push(data, archive_root, name.name)
    assert get(data, archive_root, absent.name).returncode == 1
    archive = WalArchive(archive_root, system_identifier)
    archive.file_path(name).write_bytes(archive.file_path(name).read_bytes()[:-9])
    damaged = get(data, archive_root, name.name)
    assert damaged.returncode == 126
    assert "decompressed" in damaged.stderr
    assert not (data / "pg_wal" / "RECOVERYXLOG").exists()


@pytest.mark.parametrize("arguments", [(), ("nonsense", "x"), ("000000010000000000000001",), ("--unknown", "a", "b")])
def test_a_call_that_makes_no_sense_is_not_absence(data, archive_root, arguments):
    assert run(data, "get", *arguments, "--archive", archive_root).returncode == 126


def test_nothing_configured_is_not_absence(data):
    assert run(data, "get", "000000010000000000000001", "pg_wal/RECOVERYXLOG").returncode == 126
    assert run(data, "push", "pg_wal/000000010000000000000001").returncode == 1


def test_a_destination_out_of_reach_is_not_absence(data, archive_root, segments):
    name = segments[0][0].name
    push(data, archive_root, name)
    (data / "pg_wal" / "RECOVERYXLOG").mkdir()
    assert get(data, archive_root, name).returncode == 126


@pytest.mark.parametrize("seed", range(3))
def test_kill_9_of_a_push_leaves_nothing_that_the_next_one_trips_over(
    data, archive_root, segments, system_identifier, seed
):
    """The server asks again, in this order, for every segment that it was not told is safe."""
    for name, _ in segments:
        command = [*ENTRY, "push", f"pg_wal/{name.name}", "--archive", archive_root]
        with subprocess.Popen(command, cwd=data) as process:
            time.sleep(random.Random(f"{seed} {name.name}").uniform(0.0, 0.5))
            process.kill()
        assert push(data, archive_root, name.name).returncode == 0
    archive = WalArchive(archive_root, system_identifier)
    assert check_intact(archive, deep=True).status == "healthy"
    assert [archive.fetch(name) for name, _ in segments] == [content for _, content in segments]


@pytest.mark.parametrize("seed", range(3))
def test_kill_9_of_a_get_leaves_a_whole_file_or_none(data, archive_root, segments, seed):
    name, content = segments[0]
    assert push(data, archive_root, name.name).returncode == 0
    destination = data / "pg_wal" / "RECOVERYXLOG"
    command = [*ENTRY, "get", name.name, "pg_wal/RECOVERYXLOG", "--archive", archive_root]
    with subprocess.Popen(command, cwd=data) as process:
        time.sleep(random.Random(seed).uniform(0.1, 0.5))
        process.kill()
    assert not destination.exists() or destination.read_bytes() == content
    assert get(data, archive_root, name.name).returncode == 0
    assert destination.read_bytes() == content
