import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from depot_api.client.files import FileStat
from depot_api.client.models import Action, Item, Version
from depot_api.client.problems import WorkspaceError
from depot_api.client.workspace import (
    RACY_NS,
    SCHEMA_STEPS,
    Pending,
    Seen,
    Target,
    Workspace,
    find_root,
    read_target,
    state_path,
)

TARGET = Target(uuid4(), "Skyfall", uuid4(), "main")
ONE = Version(1, "1" * 64, 10)
TWO = Version(2, "2" * 64, 20)
stats = st.builds(FileStat, st.integers(0, 9), st.integers(0, 10 * RACY_NS), st.integers(0, 3))


def test_what_was_recorded_is_there_after_opening_again(tmp_path: Path) -> None:
    with Workspace(tmp_path) as workspace:
        workspace.record(TARGET, {"a": ONE, "b": ONE}, (), 1)
        workspace.record(TARGET, {"a": TWO}, ["b"], 2)
    with Workspace(tmp_path) as workspace:
        assert (workspace.target, workspace.at, workspace.have()) == (TARGET, 2, {"a": TWO})
    assert read_target(tmp_path) == TARGET


def test_progress_makes_the_have_list_a_mixture(tmp_path: Path) -> None:
    with Workspace(tmp_path) as workspace:
        workspace.record(TARGET, {"a": ONE}, (), 1)
        workspace.record_progress(TARGET, {"b": ONE}, ())
        assert workspace.at is None
        assert workspace.have() == {"a": ONE, "b": ONE}


def test_a_pending_submit_stays_until_its_answer_is_recorded(tmp_path: Path) -> None:
    items = (Item(Action.ADD, "a", None, "1" * 64), Item(Action.DELETE, "b", 3))
    pending = Pending(uuid4(), "key", "message", items)
    with Workspace(tmp_path) as workspace:
        workspace.remember_pending(pending)
    with Workspace(tmp_path) as workspace:
        assert workspace.pending == pending
        workspace.record(TARGET, {}, (), 1)
        assert workspace.pending is None


@given(stats, stats, st.integers(0, 10 * RACY_NS))
def test_a_hash_holds_only_for_the_same_file_with_an_old_time_stamp(
    seen: FileStat, now: FileStat, seen_ns: int
) -> None:
    holds = Seen(seen, "1" * 64, seen_ns).holds_for(now)
    assert holds == (seen == now and now.mtime_ns < seen_ns - RACY_NS)


def test_a_second_command_is_told_that_one_is_at_work(tmp_path: Path) -> None:
    with Workspace(tmp_path), pytest.raises(WorkspaceError, match="at work"):
        Workspace(tmp_path)
    Workspace(tmp_path).__exit__(None, None, None)


def test_damaged_records_are_told_with_the_way_out(tmp_path: Path) -> None:
    with Workspace(tmp_path) as workspace:
        workspace.record(TARGET, {"a": ONE}, (), 1)
    state_path(tmp_path).write_bytes(b"not a database " * 100)
    with pytest.raises(WorkspaceError, match="Delete that file"):
        Workspace(tmp_path)


def test_records_of_an_older_command_are_taken_over(tmp_path: Path) -> None:
    state_path(tmp_path).parent.mkdir()
    with closing(sqlite3.connect(state_path(tmp_path))) as old:
        old.executescript(SCHEMA_STEPS[0])
        old.execute("PRAGMA user_version = 1")
    with Workspace(tmp_path) as workspace:
        workspace.record(TARGET, {"a": ONE}, (), 1)
        workspace.open_files({"b": Action.ADD, "a": Action.EDIT})
    with Workspace(tmp_path) as workspace:
        assert workspace.have() == {"a": ONE}
        assert list(workspace.opened().items()) == [("a", Action.EDIT), ("b", Action.ADD)]
        workspace.record(TARGET, {}, (), 2, submitted=["a"])
        assert workspace.opened() == {"b": Action.ADD}
        workspace.close_files(["b"])
        assert workspace.opened() == {}


def test_records_of_a_newer_command_are_refused(tmp_path: Path) -> None:
    with Workspace(tmp_path) as workspace:
        workspace._db.execute("PRAGMA user_version = 99")
    with pytest.raises(WorkspaceError, match="newer"):
        Workspace(tmp_path)


def test_a_directory_that_cannot_hold_records_works_in_memory(tmp_path: Path) -> None:
    (tmp_path / ".depot").write_text("a file is in the way")
    with Workspace(tmp_path) as workspace:
        assert not workspace.is_remembered
        workspace.record(TARGET, {"a": ONE}, (), 1)
        assert workspace.have() == {"a": ONE}


def test_the_root_is_found_from_below(tmp_path: Path) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert find_root(below) is None
    Workspace(tmp_path).__exit__(None, None, None)
    assert find_root(below) == tmp_path.resolve()


WRITER = """
import sys
from pathlib import Path
from uuid import UUID
from depot_api.client.models import Version
from depot_api.client.workspace import Target, Workspace

target = Target(UUID(int=1), "p", UUID(int=2), "b")
with Workspace(Path(sys.argv[1])) as workspace:
    number = 0
    while True:
        number += 1
        have = {f"f{i}": Version(number, "0" * 64, number) for i in range(200)}
        workspace.record(target, have, (), number)
        print(number, flush=True)
"""


@pytest.mark.parametrize("records_before_death", [1, 7, 23])
def test_a_killed_writer_leaves_the_last_whole_record(tmp_path: Path, records_before_death: int) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        told = [int(writer.stdout.readline()) for _ in range(records_before_death)][-1]
        os.kill(writer.pid, signal.SIGKILL)
    with Workspace(tmp_path) as workspace:
        assert workspace.at is not None
        assert workspace.at >= told
        assert {version.version for version in workspace.have().values()} == {workspace.at}
        assert len(workspace.have()) == 200
