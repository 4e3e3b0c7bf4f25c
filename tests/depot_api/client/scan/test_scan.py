import os
from pathlib import Path

import pytest

from depot_api.client.problems import LocalFileError
from depot_api.client.scan import scan


def test_regular_files_are_found_with_their_paths(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c.bin").write_bytes(b"123")
    (tmp_path / "top").write_bytes(b"")
    found = scan(tmp_path)
    assert {path: stat.size_bytes for path, stat in found.files.items()} == {"a/b/c.bin": 3, "top": 0}
    assert found.skipped == []


def test_records_are_never_found(tmp_path: Path) -> None:
    for directory in (tmp_path / ".depot", tmp_path / "below" / ".depot"):
        directory.mkdir(parents=True)
        (directory / "workspace.sqlite").write_bytes(b"x")
    assert scan(tmp_path).files == {}


def test_links_and_pipes_are_skipped_and_told(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"x")
    root = tmp_path / "root"
    root.mkdir()
    (root / "directory").symlink_to(outside)
    (root / "file").symlink_to(outside / "secret")
    (root / "dangling").symlink_to("nowhere")
    os.mkfifo(root / "pipe")
    found = scan(root)
    assert found.files == {}
    assert sorted((one.path, one.reason) for one in found.skipped) == [
        ("dangling", "symbolic link"),
        ("directory", "symbolic link"),
        ("file", "symbolic link"),
        ("pipe", "not a regular file"),
    ]


def test_what_is_no_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LocalFileError, match="not a directory"):
        scan(tmp_path / "nothing")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "closed").write_bytes(b"x")
    (tmp_path / "closed").chmod(0)
    with pytest.raises(LocalFileError, match="cannot be read"):
        scan(tmp_path)
