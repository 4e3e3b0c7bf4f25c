import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

MakeTree = Callable[[str, dict[str, bytes]], Path]


@pytest.fixture
def work(depot, project: str, tree: MakeTree) -> Path:
    """A workspace in which a text, a binary and a large file were changed, one was deleted, and one added."""
    files = {"Content/text": b"one\ntwo\nthree\n", "binary": b"\0\1", "gone": b"last words", "large": b"a" * 1_100_000}
    root = tree("work", files | {"same": b"same"})
    depot.json("submit", root, "-p", project, "-m", "first")
    (root / "Content/text").write_bytes(b"one\n2\nthree")
    (root / "binary").write_bytes(b"\0\2\3")
    (root / "gone").unlink()
    (root / "large").write_bytes(b"b" * 1_100_000)
    (root / "new").write_bytes("naïve\u2028line\n".encode())
    return root


def test_what_changed_here(depot, work: Path) -> None:
    found = {one["path"]: one for one in depot.json("diff", work)["differences"]}
    assert {path: one["action"] for path, one in found.items()} == {
        "Content/text": "edit",
        "binary": "edit",
        "gone": "delete",
        "large": "edit",
        "new": "add",
    }
    assert found["Content/text"]["text"].splitlines(keepends=True) == [
        "--- Content/text#1\n",
        "+++ Content/text\n",
        "@@ -1,3 +1,3 @@\n",
        " one\n",
        "-two\n",
        "-three\n",
        "+2\n",
        "+three\n",
        "\\ No newline at end of file\n",
    ]
    assert found["gone"]["text"].splitlines()[3:] == ["-last words", "\\ No newline at end of file"]
    assert found["new"]["text"].split("\n")[3:] == ["+naïve\u2028line", ""]
    assert (found["binary"]["text"], found["large"]["text"]) == (None, None)
    assert found["binary"]["had"] == {"version": 1, "sha256": hashlib.sha256(b"\0\1").hexdigest(), "size_bytes": 2}
    assert found["binary"]["now"] == {"sha256": hashlib.sha256(b"\0\2\3").hexdigest(), "size_bytes": 3}
    assert (found["new"]["had"], found["gone"]["now"]) == (None, None)


def test_people_see_lines_and_sizes(depot, work: Path) -> None:
    told = depot("diff", work / "Content", work / "binary", work / "gone").stdout.splitlines()
    old, new = (hashlib.sha256(content).hexdigest()[:12] for content in (b"\0\1", b"\0\2\3"))
    assert f"edit    binary: #1 2 B {old} -> 3 B {new}" in told
    assert any(line.startswith("delete  gone: #1 10 B ") and line.endswith(" -> deleted") for line in told)
    assert "+2" in told
    assert told[-1] == "3 files changed."
    assert depot("diff", work / "same").stdout == "0 files changed.\n"


def test_the_base_is_what_the_workspace_has(depot, work: Path, project: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    depot.json("sync", other, "-p", project)
    (other / "Content/text").write_bytes(b"a newer version\n")
    depot.json("submit", other, "-m", "second")
    (one,) = depot.json("diff", work / "Content/text")["differences"]
    assert one["had"]["version"] == 1
    assert "-two\n" in one["text"]


def test_branches_or_paths(depot, project: str, work: Path) -> None:
    depot.json("branch", "create", "dev", "--project", project)
    for name in ("main", "dev", "hero@2x.png", "logo@2x.png"):
        (work / name).write_bytes(b"a file")

    def differences(*arguments: str) -> list[str]:
        in_work = type(depot)(depot.environment, work)
        return [one["path"] for one in in_work.json("diff", *arguments)["differences"]]

    assert differences("main", "dev") == []
    assert differences("main@0", "main@1") == ["binary", "Content/text", "gone", "large", "same"]
    assert differences("./main", "dev") == ["dev", "main"]
    assert differences("main") == ["main"]
    assert differences("hero@2x.png", "logo@2x.png") == ["hero@2x.png", "logo@2x.png"]
    assert len(differences()) == 9


def test_wrong_usage(depot, project: str, work: Path) -> None:
    assert depot("diff", "main", "--project", project).returncode == 2
    assert depot("diff").returncode == 2
    assert "no branch" in depot("diff", "main", "nowhere", "--project", project).stderr
    done = depot("diff", work / "nowhere")
    assert (done.returncode, "nowhere is not in the workspace" in done.stderr) == (1, True)
