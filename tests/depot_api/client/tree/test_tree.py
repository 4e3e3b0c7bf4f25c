from pathlib import Path

import pytest

from depot_api.client.files import FileStat
from depot_api.client.problems import FileChanged, PathRefused
from depot_api.client.tree import WorkTree

HASH = "1" * 64


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../x", "a/../../x", "a//b", ".", "", "a/./b", "a\\b", "a\0b", ".depot/workspace.sqlite"]
)
def test_paths_that_lead_out_are_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(PathRefused):
        WorkTree(tmp_path).locate(path)


def test_a_link_is_not_written_through(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "link").symlink_to(outside)
    tree = WorkTree(root)
    part = tree.part(HASH)
    part.write_bytes(b"x")
    with pytest.raises(PathRefused, match="symbolic link"):
        tree.place(part, "link/x", None)
    assert list(outside.iterdir()) == []


def test_a_part_gets_its_name_in_new_directories(tmp_path: Path) -> None:
    tree = WorkTree(tmp_path)
    part = tree.part(HASH)
    part.write_bytes(b"content")
    stat = tree.place(part, "a/b/c", None)
    assert (tmp_path / "a/b/c").read_bytes() == b"content"
    assert stat == FileStat.of((tmp_path / "a/b/c").stat())
    assert not part.exists()


def test_a_file_that_appeared_meanwhile_is_left_alone(tmp_path: Path) -> None:
    tree = WorkTree(tmp_path)
    part = tree.part(HASH)
    part.write_bytes(b"depot")
    (tmp_path / "a").write_bytes(b"user")
    with pytest.raises(FileChanged):
        tree.place(part, "a", None)
    assert (tmp_path / "a").read_bytes() == b"user"


def test_a_file_where_a_directory_should_be_is_left_alone(tmp_path: Path) -> None:
    tree = WorkTree(tmp_path)
    part = tree.part(HASH)
    part.write_bytes(b"depot")
    (tmp_path / "a").write_bytes(b"user")
    with pytest.raises(FileChanged):
        tree.place(part, "a/b", None)
    assert (tmp_path / "a").read_bytes() == b"user"


def test_removing_leaves_no_empty_directories_and_nothing_else_gone(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "gone").write_bytes(b"x")
    (tmp_path / "a" / "stays").write_bytes(b"x")
    tree = WorkTree(tmp_path)
    tree.remove("a/b/gone", FileStat.of((tmp_path / "a/b/gone").stat()))
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == ["a", "a/stays"]
