"""The real disaster: what is restored takes the old one's place and goes on, and what was there is kept."""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from depot_ops.local.ports import any_free
from depot_ops.postgres.in_place import restore_in_place
from depot_ops.postgres.recovery import TargetNotReached, restore
from depot_ops.postgres.recovery_plan import RestoreError, RestoreRefused, Target
from depot_ops.postgres.wal.names import WalName, parse_lsn, parse_wal_name, segment_name
from depot_ops.postgres.wal.timelines import path_to

SEGMENT_BYTES = 1 << 20

# `make torture` takes more.
FIRST_SEED, KILLS = int(os.environ.get("SEED", "0")), int(os.environ.get("RESTORE_KILLS", "1"))
DEADLINE_SECONDS = 60
RESTORE = """
import sys
from pathlib import Path
from depot_ops.postgres.accounts import server_account
from depot_ops.postgres.binaries import find_binaries
from depot_ops.postgres.in_place import restore_in_place
from depot_ops.postgres.recovery_plan import Target
print("ready", flush=True)
what = (find_binaries(Path(sys.argv[4])), server_account(), Target())
restore_in_place(*map(Path, sys.argv[1:4]), *what, force=True)
"""


def in_place(primary, *, force=True, target=Target(), **options):  # noqa: B008 - frozen
    cluster = primary.cluster
    return restore_in_place(
        cluster.data,
        primary.backup_dir,
        primary.archive_root,
        cluster.binaries,
        cluster.account,
        target,
        force=force,
        **options,
    )


@pytest.fixture
def protected(primary):
    """Three rows in the archive, behind a base backup."""
    primary.insert(1)
    primary.back_up()
    primary.insert(2)
    primary.archive_all()
    return primary


def test_it_refuses_a_server_that_lives_and_touches_nothing(protected):
    with pytest.raises(RestoreRefused, match="its server is running"):
        in_place(protected, force=False)
    assert protected.rows() == [1, 2, 3]


def test_a_second_restore_leaves_the_first_one_alone(protected):
    data = protected.cluster.data

    def second(report):
        assert report.directory == str(data)
        assert not list(data.parent.glob("data.before-*")), "told before it takes its place"
        with pytest.raises(RestoreRefused, match="another restore"):
            in_place(protected)

    in_place(protected, restored=second)
    protected.cluster.start()
    assert protected.rows() == [1, 2, 3]


def test_it_refuses_what_is_not_empty(protected):
    protected.cluster.stop()
    with pytest.raises(RestoreRefused, match="is not empty"):
        in_place(protected, force=False)
    protected.cluster.start()
    assert protected.rows() == [1, 2, 3]


def test_the_restored_cluster_is_the_primary_and_its_history_goes_on(protected, work_dir):
    unarchived = protected.insert(1)
    report = in_place(protected)
    assert report.set_aside is not None
    protected.cluster.start()
    assert protected.rows() == [1, 2, 3]
    assert protected.execute("SHOW archive_mode") == [("on",)]
    protected.insert(1)
    protected.archive_all()
    clone = restore(
        work_dir / "clone",
        protected.backup_dir,
        protected.archive_root,
        protected.cluster.binaries,
        protected.cluster.account,
    )
    assert clone.recovered_timeline == report.new_timeline == 2
    assert clone.last_commit_at is not None
    assert clone.last_commit_at > unarchived


def test_twice_in_place_takes_two_new_timelines(protected):
    assert in_place(protected, timeline=1).new_timeline == 2
    assert in_place(protected, timeline=1).new_timeline == 3
    protected.cluster.start()
    assert protected.rows() == [1, 2, 3]


def test_what_is_lost_altogether_is_restored_where_it_was(protected):
    protected.cluster.stop()
    lost = protected.cluster.data.with_name("lost")
    protected.cluster.data.rename(lost)
    assert in_place(protected, force=False).set_aside is None
    protected.cluster.start()
    assert protected.rows() == [1, 2, 3]


def test_a_restore_that_fails_leaves_the_old_one_in_its_place(protected):
    protected.insert(1)
    victim = [name for name in protected.archive.names() if name.is_whole_segment][-1]
    protected.archive.file_path(victim).write_bytes(b"damaged")
    with pytest.raises(RestoreError):
        in_place(protected)
    with pytest.raises(psycopg.OperationalError):
        protected.rows()
    protected.cluster.start()
    assert protected.rows() == [1, 2, 3, 4]


@pytest.fixture
def branched(protected):
    """In place to a moment in the middle of a segment, behind which timeline 1 has more; nothing of 2 is archived."""
    moment = protected.insert(2)
    protected.insert(3)
    protected.archive_all()
    report = in_place(protected, target=Target.at_time(moment))
    assert report.new_timeline == 2
    protected.cluster.start()
    assert protected.rows() == [1, 2, 3, 4, 5]
    assert [name.name for name in protected.archive.names() if name.timeline == 2] == ["00000002.history"]
    return protected


def branch_segment(primary) -> tuple[WalName, WalName]:
    """The segment in which timeline 2 began, by its name on either timeline."""
    path = path_to(primary.archive, 2)
    assert path.branch_position % SEGMENT_BYTES
    number = path.branch_position // SEGMENT_BYTES
    old, new = (parse_wal_name(segment_name(timeline, number, SEGMENT_BYTES)) for timeline in (1, 2))
    assert old and new
    return old, new


def test_the_latest_right_after_has_every_row_up_to_the_branch_and_none_beyond(branched, work_dir):
    """Timeline 2's own copy of the segment in which it began is archived once it is full: 1's has those rows."""
    report = clone(branched, work_dir)
    assert clone_rows(branched, work_dir) == branched.rows() == [1, 2, 3, 4, 5]
    assert report.last_segment == branch_segment(branched)[1].name
    # What a promotion leaves of that segment serves too.
    archive, (old, _) = branched.archive, branch_segment(branched)
    partial = parse_wal_name(f"{old.name}.partial")
    archive.store(partial, archive.fetch(old))
    archive.file_path(old).unlink()
    archive.record_path(old).unlink()
    with pytest.raises(TargetNotReached, match="--timeline 1 for what it had behind"):
        clone(branched, work_dir, target=Target.at_time(datetime.now(UTC)))
    clone(branched, work_dir)
    assert clone_rows(branched, work_dir) == [1, 2, 3, 4, 5]


def test_without_that_segment_the_latest_is_refused_by_name(branched, work_dir):
    archive, (old, new) = branched.archive, branch_segment(branched)
    archive.file_path(old).unlink()
    archive.record_path(old).unlink()
    with pytest.raises(RestoreRefused, match=f"not in the archive: {new.name}"):
        clone(branched, work_dir)
    stream = work_dir / "stream"
    stream.mkdir()
    with pytest.raises(RestoreRefused, match=new.name):
        clone(branched, work_dir, stream=stream)
    received = parse_lsn(branched.execute("SELECT pg_current_wal_flush_lsn()::text")[0][0]) % SEGMENT_BYTES
    content = (branched.cluster.data / "pg_wal" / new.name).read_bytes()[:received]
    (stream / f"{new.name}.partial").write_bytes(content.ljust(SEGMENT_BYTES, b"\0"))
    assert clone(branched, work_dir, stream=stream).streamed_until
    assert clone_rows(branched, work_dir) == [1, 2, 3, 4, 5]


def test_a_mount_point_is_refused_before_anything_is_stopped(protected, monkeypatch):
    def busy(path, target):
        raise OSError(errno.EBUSY, "Device or resource busy", str(path))

    monkeypatch.setattr(Path, "rename", busy)
    with pytest.raises(RestoreRefused, match="cannot be set aside: Device or resource busy"):
        in_place(protected)
    monkeypatch.undo()
    assert protected.rows() == [1, 2, 3]


def test_a_swap_that_fails_leaves_no_timeline_behind(protected, monkeypatch):
    """The same command again reaches its target: no recovery follows a timeline that never began."""
    moment = protected.insert(1)
    protected.insert(1)
    protected.archive_all()
    monkeypatch.setattr("depot_ops.postgres.in_place._swap", _no_swap)
    with pytest.raises(RestoreError, match="lies in"):
        in_place(protected, target=Target.at_time(moment))
    monkeypatch.undo()
    in_place(protected, target=Target.at_time(moment))
    protected.cluster.start()
    assert protected.rows() == [1, 2, 3, 4]


def _no_swap(fresh, data):
    raise OSError(errno.EIO, "Input/output error")


def test_killed_right_after_the_swap_the_server_archives_its_history(protected, monkeypatch, work_dir):
    monkeypatch.setattr("depot_ops.postgres.in_place._archive_history", _killed)
    with pytest.raises(KeyboardInterrupt):
        in_place(protected)
    protected.cluster.start()
    protected.insert(1)
    protected.archive_all()
    assert "00000002.history" in {name.name for name in protected.archive.names()}
    assert clone(protected, work_dir).recovered_timeline == 2
    rows = protected.rows()
    assert len(rows) == 4
    assert clone_rows(protected, work_dir) == rows


def _killed(*_):
    raise KeyboardInterrupt


def clone(primary, work_dir, **options):
    home = work_dir / "clone"
    home.mkdir(mode=0o711, exist_ok=True)
    primary.cluster.account.own(home)
    shutil.rmtree(home / "data", ignore_errors=True)
    cluster = primary.cluster
    return restore(
        home / "data", primary.backup_dir, primary.archive_root, cluster.binaries, cluster.account, **options
    )


def clone_rows(primary, work_dir) -> list[int]:
    """Of the rows that were inserted before the clone was made."""
    cluster = replace(primary.cluster, home=work_dir / "clone", port=any_free())
    cluster.start()
    try:
        with psycopg.connect(cluster.url(), autocommit=True) as connection:
            return [row for (row,) in connection.execute("SELECT id FROM numbered ORDER BY id").fetchall()]
    finally:
        cluster.stop()


def restored_again(primary) -> None:
    """What a person does after the first attempt was killed."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        try:
            in_place(primary)
            break
        except RestoreError as error:
            assert "killed one ends" in str(error) and time.monotonic() < deadline, error
            time.sleep(0.1)
    primary.cluster.start()
    assert primary.rows() == [1, 2, 3]
    left = {path.name.split(".before-")[0] for path in primary.cluster.data.parent.iterdir()}
    assert not any(name.startswith((".restored", ".partial")) for name in left), left


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + KILLS))
def test_kill_9_at_any_moment_and_run_again(protected, seed):
    cluster = protected.cluster
    arguments = [cluster.data, protected.backup_dir, protected.archive_root, cluster.binaries.bindir]
    process = subprocess.Popen([sys.executable, "-c", RESTORE, *map(str, arguments)], stdout=subprocess.PIPE)
    with process:
        assert process.stdout and process.stdout.readline()
        time.sleep(random.Random(seed).uniform(0.0, 2.0))
        os.kill(process.pid, signal.SIGKILL)
    restored_again(protected)


@pytest.mark.parametrize("old_is_aside", [False, True])
def test_killed_right_before_the_new_one_takes_its_place(protected, old_is_aside):
    """The new timeline's history is in the archive, and nothing else of it."""
    aside = in_place(protected).set_aside
    data = protected.cluster.data
    data.rename(data.with_name(f".restored-{data.name}"))
    if not old_is_aside:
        Path(aside).rename(data)
    restored_again(protected)
