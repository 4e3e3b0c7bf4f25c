import hashlib
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from depot_api.client import DamagedContent, ProblemError, WorkspaceError, status, submit_tree, sync_tree, verify
from depot_api.client.models import Action
from depot_api.client.plan import ConflictReason
from depot_api.client.workspace import Workspace, state_path

Contents = Callable[[Path], dict[str, bytes]]


@pytest.fixture
def contents() -> Contents:
    """Every file of a tree but the records."""

    def read(root: Path) -> dict[str, bytes]:
        files = (path for path in root.rglob("*") if path.is_file() and ".depot" not in path.parts)
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}

    return read


@pytest.fixture
def source(depot, tmp_path: Path) -> Path:
    """A submitted tree: small, empty, equal and large files."""
    root = tmp_path / "source"
    rng = random.Random(1)
    for number in range(20):
        path = root / f"Content/d{number % 3}/a{number}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.randbytes(rng.choice([1, 1000, 70_000])))
    (root / "empty").write_bytes(b"")
    large = rng.randbytes(1_000_000) * 3
    for name in ("large", "large copy", "Content/large copy"):
        (root / name).write_bytes(large)
    (root / "text").write_bytes(b"compressible " * 300_000)
    (root / "small copy").write_bytes((root / "Content/d0/a0.bin").read_bytes())
    depot.submit(root)
    return root


def test_what_went_in_comes_out_byte_for_byte(depot, source: Path, tmp_path: Path, contents: Contents) -> None:
    work = tmp_path / "work"
    result = depot.sync(work)
    assert contents(work) == contents(source)
    assert (result.at, result.fetched, result.conflicts) == (1, 26, [])
    assert not (work / ".depot/tmp").exists()
    assert depot.submit(work).number is None


def test_any_changelist_comes_out(depot, source: Path, tmp_path: Path, contents: Contents) -> None:
    first = contents(source)
    (source / "text").write_bytes(b"edited")
    (source / "empty").unlink()
    (source / "new").write_bytes(b"new")
    depot.submit(source)
    work = tmp_path / "work"
    depot.sync(work, at=1)
    assert contents(work) == first
    result = depot.sync(work)
    assert (result.fetched, result.removed) == (2, 1)
    assert contents(work) == contents(source)
    depot.sync(work, at=1)
    assert contents(work) == first
    depot.sync(work, at=0)
    assert contents(work) == {}


def test_a_content_that_the_depot_cannot_send_is_named(api, depot, tmp_path: Path) -> None:
    """In a pack that has begun, the service can only break off."""
    source, content = tmp_path / "source", os.urandom(2_000)
    for number in range(5):
        (source / f"d{number}").mkdir(parents=True)
        (source / f"d{number}/file").write_bytes(content if number == 3 else os.urandom(1_000))
    depot.submit(source)
    sha256 = hashlib.sha256(content).hexdigest()
    stored = api.store / "objects" / sha256[:2] / f"{sha256}.bin.gz"
    stored.write_bytes(bytes(byte ^ 1 for byte in stored.read_bytes()))
    with pytest.raises(DamagedContent, match=r"^d3/file cannot be had.*is damaged"):
        depot.sync(tmp_path / "work")
    assert len([path for path in (tmp_path / "work").rglob("file")]) == 4, "the rest has come"


def test_what_is_right_already_is_not_fetched(depot, source: Path, tmp_path: Path, contents: Contents) -> None:
    work = tmp_path / "work"
    depot.sync(work)
    state_path(work).unlink()
    (work / "text").unlink()
    result = depot.sync(work)
    assert (result.fetched_objects, result.unchanged) == (1, 25)
    assert contents(work) == contents(source)


def test_a_part_of_a_large_file_is_gone_on_with(depot, source: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    parts = work / ".depot/tmp"
    parts.mkdir(parents=True)
    large = (source / "large").read_bytes()
    sha256 = depot.client.manifest(depot.branch().id).files["large"].sha256
    (parts / f"{sha256}.part").write_bytes(large[:1_234_567])
    depot.sync(work)
    assert (work / "large").read_bytes() == large


def test_a_wrong_part_is_thrown_away(depot, source: Path, tmp_path: Path, contents: Contents) -> None:
    work = tmp_path / "work"
    parts = work / ".depot/tmp"
    parts.mkdir(parents=True)
    for path, version in depot.client.manifest(depot.branch().id).files.items():
        (parts / f"{version.sha256}.part").write_bytes(b"?" * (version.size_bytes + len(path) % 3 - 1))
    depot.sync(work)
    assert contents(work) == contents(source)


def test_local_changes_are_kept_until_the_depot_changes_too(depot, source: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    depot.sync(work)
    (work / "text").write_bytes(b"mine")
    (work / "empty").unlink()
    (work / "extra").write_bytes(b"mine too")
    result = depot.sync(work)
    assert (sorted(result.kept), result.conflicts) == (["empty", "text"], [])
    (source / "text").write_bytes(b"theirs")
    (source / "extra").write_bytes(b"theirs too")
    (source / "large").unlink()
    (work / "large").write_bytes(b"mine as well")
    depot.submit(source)
    result = depot.sync(work)
    assert {one.path: one.reason for one in result.conflicts} == {
        "text": ConflictReason.BOTH_CHANGED,
        "extra": ConflictReason.IN_THE_WAY,
        "large": ConflictReason.CHANGED_AND_DELETED,
    }
    assert (work / "text").read_bytes() == b"mine"
    assert (work / "extra").read_bytes() == b"mine too"
    assert (work / "large").read_bytes() == b"mine as well"
    with pytest.raises(ProblemError) as caught:
        depot.submit(work)
    assert caught.value.slug == "stale-base"


def test_force_takes_the_depots_side(depot, source: Path, tmp_path: Path, contents: Contents) -> None:
    work = tmp_path / "work"
    depot.sync(work)
    (work / "text").write_bytes(b"mine")
    (work / "empty").unlink()
    result = depot.sync(work, force=True)
    assert (result.fetched, result.kept) == (2, [])
    assert contents(work) == contents(source)


def test_the_same_change_on_both_sides_is_no_conflict(depot, source: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    depot.sync(work)
    (work / "text").write_bytes(b"same")
    (source / "text").write_bytes(b"same")
    depot.submit(source)
    assert depot.sync(work).conflicts == []
    assert depot.submit(work).number is None


def test_a_link_in_the_way_is_a_conflict(depot, source: Path, tmp_path: Path) -> None:
    work, outside = tmp_path / "work", tmp_path / "outside"
    work.mkdir()
    outside.write_bytes(b"untouched")
    (work / "text").symlink_to(outside)
    result = depot.sync(work)
    assert [one.path for one in result.conflicts] == ["text"]
    assert outside.read_bytes() == b"untouched"


def test_another_branch_can_be_synced_into_the_same_workspace(depot, source: Path, tmp_path: Path) -> None:
    release = depot.client.create_branch(depot.project.id, "release", parent_id=depot.branch().id, parent_at=1)
    (source / "text").write_bytes(b"main goes on")
    depot.submit(source)
    work = tmp_path / "work"
    depot.sync(work)
    with pytest.raises(WorkspaceError, match="main"):
        submit_tree(depot.client, work, depot.project, release, "wrong branch")
    result = sync_tree(depot.client, work, depot.project, release)
    assert (result.fetched, (work / "text").read_bytes()[:12]) == (1, b"compressible")


def test_status_tells_both_sides(depot, source: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    depot.sync(work)
    (work / "new").write_bytes(b"x")
    (work / "empty").unlink()
    (source / "text").write_bytes(b"theirs")
    depot.submit(source)
    seen = status(depot.client, work)
    assert {item.path: item.action for item in seen.changed_here} == {"new": Action.ADD, "empty": Action.DELETE}
    assert {item.path: item.action for item in seen.changed_in_depot} == {"text": Action.EDIT}
    assert (seen.at, seen.head_no) == (1, 2)


def test_verify_reads_everything_again(depot, source: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    depot.sync(work)
    assert verify(work).is_intact
    before = (work / "large").stat()
    with (work / "large").open("r+b") as file:
        file.seek(1_500_000)
        file.write(b"?")
    os.utime(work / "large", ns=(before.st_atime_ns, before.st_mtime_ns))  # bit rot leaves the time alone
    (work / "empty").unlink()
    seen = verify(work)
    assert (seen.different, seen.missing, seen.checked) == (["large"], ["empty"], 26)


def test_what_is_no_workspace_is_told(depot, tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="depot sync"):
        status(depot.client, tmp_path)
    with pytest.raises(WorkspaceError, match="depot sync"):
        verify(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_after_a_sync_every_old_enough_file_is_trusted(depot, source: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    depot.sync(work)
    with Workspace(work) as workspace:
        assert workspace.seen().keys() == workspace.have().keys()
        assert workspace.at == 1
