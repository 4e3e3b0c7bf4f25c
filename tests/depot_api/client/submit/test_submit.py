import hashlib
import os
import random
from pathlib import Path
from uuid import uuid4

import pytest

from depot_api.client import PathRefused, ProblemError, WorkspaceError, submit_tree
from depot_api.client.http import Body
from depot_api.client.models import Action, ChangelistStatus, Item
from depot_api.client.opened import open_for_edit
from depot_api.client.workspace import Pending, Target, Workspace


def make_tree(root: Path, seed: int = 1, files: int = 30) -> None:
    rng = random.Random(seed)
    for number in range(files):
        path = root / f"Content/d{number % 4}/a{number}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.randbytes(rng.choice([0, 1, 1000, 70_000])))
    (root / "Content/big.bin").write_bytes(rng.randbytes(3_000_000))


def make_old(root: Path) -> None:
    """Let every file look as if it had been written a minute ago: the hashes seen in them are trusted."""
    for path in root.rglob("*"):
        if path.is_file() and ".depot" not in path.parts:
            stat = path.stat()
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns - 60_000_000_000))


def test_a_tree_goes_in_whole(depot, tmp_path: Path) -> None:
    make_tree(tmp_path)
    result = depot.submit(tmp_path)
    files = depot.client.manifest(depot.branch().id).files
    assert (result.number, result.added, len(files)) == (1, 31, 31)
    assert {path: version.size_bytes for path, version in files.items()} == {
        path.relative_to(tmp_path).as_posix(): path.stat().st_size for path in (tmp_path / "Content").rglob("*.bin")
    }


def test_an_unchanged_tree_is_neither_read_nor_submitted(depot, tmp_path: Path) -> None:
    make_tree(tmp_path)
    make_old(tmp_path)
    depot.submit(tmp_path)
    again = depot.submit(tmp_path)
    assert (again.number, again.hashed_files, again.unchanged) == (None, 0, 31)
    assert depot.branch().head_no == 1


def test_a_file_that_was_just_written_is_read_again(depot, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    depot.submit(tmp_path)
    before = (tmp_path / "a").stat()
    (tmp_path / "a").write_bytes(b"two")
    os.utime(tmp_path / "a", ns=(before.st_atime_ns, before.st_mtime_ns))  # as if within one tick of the clock
    assert depot.submit(tmp_path).edited == 1


def test_only_what_changed_is_read_and_sent(depot, tmp_path: Path) -> None:
    make_tree(tmp_path)
    make_old(tmp_path)
    depot.submit(tmp_path)
    (tmp_path / "Content/d0/a0.bin").write_bytes(b"edited")
    (tmp_path / "Content/d1/a1.bin").unlink()
    (tmp_path / "new").write_bytes(b"added")
    (tmp_path / "Content/d2/a2.bin").touch()
    result = depot.submit(tmp_path)
    assert (result.added, result.edited, result.deleted) == (1, 1, 1)
    assert (result.hashed_files, result.sent_objects, result.sent_bytes) == (3, 2, 11)
    files = depot.client.manifest(depot.branch().id).files
    assert files["Content/d0/a0.bin"].version == 2
    assert "Content/d1/a1.bin" not in files


def test_a_deleted_file_can_come_back(depot, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "b").write_bytes(b"stays")
    depot.submit(tmp_path)
    (tmp_path / "a").unlink()
    depot.submit(tmp_path)
    (tmp_path / "a").write_bytes(b"one")
    result = depot.submit(tmp_path)
    assert (result.added, result.sent_objects) == (1, 0)
    (tmp_path / "a").write_bytes(b"two")
    assert depot.submit(tmp_path).edited == 1


def test_a_tree_without_records_deletes_only_when_asked(depot, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    make_tree(first)
    depot.submit(first)
    second.mkdir()
    (second / "other").write_bytes(b"x")
    assert depot.submit(second).deleted == 0
    third = tmp_path / "third"
    third.mkdir()
    (third / "other").write_bytes(b"x")
    result = depot.submit(third, delete_missing=True)
    assert (result.added, result.deleted) == (0, 31)


def test_the_slower_of_two_edits_is_refused_and_told_why(depot, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    (one / "a").write_bytes(b"base")
    depot.submit(one)
    depot.sync(other)
    (one / "a").write_bytes(b"faster")
    (other / "a").write_bytes(b"slower")
    depot.submit(one)
    with pytest.raises(ProblemError) as caught:
        depot.submit(other)
    assert caught.value.slug == "stale-base"
    assert [stale["path"] for stale in caught.value.extra["stale"]] == ["a"]
    assert (other / "a").read_bytes() == b"slower"
    open_ones = depot.client.changelists(depot.project.id, status=ChangelistStatus.OPEN)
    assert list(open_ones) == []


@pytest.mark.parametrize("name", ["con.txt", "dot.", "a:b"])
def test_bad_names_are_told_before_anything_is_sent(depot, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(PathRefused, match="nothing was sent"):
        depot.submit(tmp_path)


def test_names_that_differ_only_in_case_are_refused(depot, tmp_path: Path) -> None:
    (tmp_path / "Hero").write_bytes(b"x")
    depot.submit(tmp_path)
    (tmp_path / "hero").write_bytes(b"y")
    with pytest.raises(PathRefused, match="only in case"):
        depot.submit(tmp_path)


def test_links_are_skipped_and_told(depot, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "link").symlink_to("a")
    result = depot.submit(tmp_path)
    assert result.added == 1
    assert [one.path for one in result.skipped] == ["link"]


def test_a_workspace_of_another_project_is_refused(depot, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    with Workspace(tmp_path) as workspace:
        workspace.record(Target(uuid4(), "Other", uuid4(), "main"), {}, (), 0)
    with pytest.raises(WorkspaceError, match="Other"):
        depot.submit(tmp_path)


def test_a_submit_whose_answer_was_lost_is_not_done_twice(depot, tmp_path: Path) -> None:
    pending = pending_edit(depot, tmp_path)
    depot.client.submit_changelist(pending.changelist_id, pending.idempotency_key)
    result = depot.submit(tmp_path, "edit")
    assert (result.number, result.finished_earlier) == (2, 2)
    assert depot.branch().head_no == 2
    assert depot.submit(tmp_path).number is None


def test_a_submit_of_opened_files_whose_answer_was_lost_closes_them(depot, tmp_path: Path) -> None:
    pending = pending_edit(depot, tmp_path)
    open_for_edit(tmp_path, ["a"])
    depot.client.submit_changelist(pending.changelist_id, pending.idempotency_key)
    result = submit_tree(depot.client, tmp_path, depot.project, depot.branch(), "edit", only_opened=True)
    assert (result.number, result.finished_earlier) == (2, 2)
    with pytest.raises(WorkspaceError, match="No file is opened"):
        submit_tree(depot.client, tmp_path, depot.project, depot.branch(), "edit", only_opened=True)


def test_a_submit_that_was_killed_before_its_last_request_is_gone_on_with(depot, tmp_path: Path) -> None:
    pending = pending_edit(depot, tmp_path)
    result = depot.submit(tmp_path, "edit")
    assert (result.number, result.changelist_id) == (2, str(pending.changelist_id))


def test_a_begun_submit_that_no_longer_fits_is_abandoned(depot, tmp_path: Path) -> None:
    pending = pending_edit(depot, tmp_path)
    (tmp_path / "more").write_bytes(b"x")
    result = depot.submit(tmp_path, "edit")
    assert (result.number, result.added, result.edited) == (2, 1, 1)
    assert depot.client.changelist(pending.changelist_id).status is ChangelistStatus.ABANDONED


def pending_edit(depot, root: Path) -> Pending:
    """A workspace with an edit whose changelist is filled, but not submitted."""
    (root / "a").write_bytes(b"first")
    depot.submit(root)
    (root / "a").write_bytes(b"second")
    sha256 = hashlib.sha256(b"second").hexdigest()
    body = Body(6, lambda: (b"second",))
    depot.client.put_object(depot.project.id, sha256, body)
    changelist = depot.client.create_changelist(depot.project.id, depot.branch().id, "edit")
    items = (Item(Action.EDIT, "a", 1, sha256),)
    depot.client.add_items(changelist.id, items)
    pending = Pending(changelist.id, str(uuid4()), "edit", items)
    with Workspace(root) as workspace:
        workspace.remember_pending(pending)
    return pending
