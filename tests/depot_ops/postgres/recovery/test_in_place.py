"""The real disaster: what is restored takes the old one's place and goes on, and what was there is kept."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from depot_ops.postgres.in_place import restore_in_place
from depot_ops.postgres.recovery import restore
from depot_ops.postgres.recovery_plan import RestoreError, RestoreRefused, Target

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
