import hashlib
import random
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from depot_api.client import DepotClient

MakeTree = Callable[[str, dict[str, bytes]], Path]


def test_the_tour(depot, project: str, tree: MakeTree, tmp_path: Path) -> None:
    source, work = tree("source", {"Content/a": b"1", "b": b"2"}), tmp_path / "work"
    submitted = depot.json("submit", source, "-p", project, "-b", "main", "-m", "first")
    assert (submitted["number"], submitted["added"], submitted["sent_bytes"]) == (1, 2, 2)
    again = depot("submit", source, "-m", "again")
    assert (again.returncode, again.stdout.startswith("Nothing changed")) == (0, True)
    synced = depot.json("sync", work, "-p", project, "-b", "main")
    assert (synced["at"], synced["fetched"]) == (1, 2)
    assert (work / "Content/a").read_bytes() == b"1"
    assert depot.json("status", work)["changed_here"] == []
    assert depot.json("verify", work)["is_intact"]
    log = depot.json("log", "--project", project)["changelists"]
    assert [(one["number"], one["description"]) for one in log] == [(1, "first")]
    assert "first" in depot("log", "-p", project).stdout


def test_no_bars_and_no_colour_in_a_pipe(depot, project: str, tree: MakeTree, tmp_path: Path) -> None:
    source = tree("source", {"a": bytes(5_000_000)})
    submitted = depot("submit", source, "-p", project, "-m", "m")
    synced = depot("sync", tmp_path / "work", "-p", project)
    for done in (submitted, synced):
        assert done.returncode == 0
        assert done.stderr == ""
        assert done.stdout.count("\n") == 1
        assert "\x1b" not in done.stdout


def test_without_a_workspace_the_project_must_be_named(depot, tree: MakeTree) -> None:
    done = depot("submit", tree("source", {"a": b"1"}), "-m", "m")
    assert done.returncode == 2
    assert "--project" in done.stderr


def test_a_part_of_a_workspace_is_refused(depot, project: str, tree: MakeTree) -> None:
    source = tree("source", {"Content/a": b"1"})
    depot.json("submit", source, "-p", project, "-m", "m")
    done = depot("submit", source / "Content", "-p", project, "-m", "m")
    assert done.returncode == 2
    assert depot("verify", source / "Content").returncode == 0


def test_the_slower_edit_is_1_and_told_in_words(depot, project: str, tree: MakeTree, tmp_path: Path) -> None:
    source, work = tree("source", {"a": b"1"}), tmp_path / "work"
    depot.json("submit", source, "-p", project, "-m", "m")
    depot.json("sync", work, "-p", project)
    (source / "a").write_bytes(b"faster")
    (work / "a").write_bytes(b"slower")
    depot.json("submit", source, "-m", "m")
    done = depot("submit", work, "-m", "m")
    assert done.returncode == 1
    assert "a: you have version 1, the depot has version 2 (changelist 2)" in done.stderr
    assert "depot sync" in done.stderr
    done = depot("sync", work)
    assert done.returncode == 1
    assert "a: changed here and in the depot" in done.stdout
    assert depot("sync", work, "--force").returncode == 0
    assert (work / "a").read_bytes() == b"faster"


def test_differences_found_by_verify_are_1(depot, project: str, tree: MakeTree) -> None:
    source = tree("source", {"a": b"1"})
    depot.json("submit", source, "-p", project, "-m", "m")
    (source / "a").write_bytes(b"2")
    assert depot.json("verify", source, exit_code=1)["different"] == ["a"]


def test_skipped_links_are_told_on_stderr(depot, project: str, tree: MakeTree) -> None:
    source = tree("source", {"a": b"1"})
    (source / "link").symlink_to("a")
    done = depot("submit", source, "-p", project, "-m", "m")
    assert done.returncode == 0
    assert "only regular files are kept (1)" in done.stderr
    assert "link (symbolic link)" in done.stderr


@pytest.fixture
def large_tree(tree: MakeTree) -> Path:
    rng = random.Random(5)
    return tree("source", {f"large{n}": rng.randbytes(4_000_000) for n in range(20)})


def hashes(root: Path) -> list[str]:
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in root.glob("large*")]


def test_a_killed_submit_sends_only_the_rest(api, depot, project: str, large_tree: Path) -> None:
    all_hashes = hashes(large_tree)
    with DepotClient(api.url, api.token) as client:
        project_id = client.find_project(project).id
        with depot.start("submit", large_tree, "-p", project, "-m", "m") as running:
            while len(client.missing(project_id, all_hashes)) == len(all_hashes):
                assert running.poll() is None
            running.kill()
        # What was on its way when the client died may still arrive: nobody waits for it.
        missing = client.missing(project_id, all_hashes)
        done = depot.json("submit", large_tree, "-p", project, "-m", "m")
        assert done["number"] == 1
        assert done["sent_objects"] <= len(missing) < len(all_hashes)
        branch = client.find_branch(client.find_project(project).id, "main")
        assert branch.head_no == 1
        assert {one.sha256 for one in client.manifest(branch.id).files.values()} == set(all_hashes)


def interrupt(running: subprocess.Popen[str]) -> str:
    """As a person does, who presses Ctrl-C again when nothing happens: Python drops one that meets a finalizer."""
    try:
        for _ in range(5):
            running.send_signal(signal.SIGINT)
            try:
                return running.communicate(timeout=10)[1]
            except subprocess.TimeoutExpired:
                continue
        raise AssertionError("it cannot be interrupted")
    finally:
        running.kill()


def test_an_interrupted_submit_says_how_to_go_on(api, depot, project: str, large_tree: Path) -> None:
    all_hashes = hashes(large_tree)
    with DepotClient(api.url, api.token) as client, psycopg.connect(api.owner_url) as owner:
        project_id = client.find_project(project).id
        # Whoever holds the branch makes the submit wait: it cannot be done before it is interrupted.
        assert owner.execute("SELECT FROM branches WHERE project_id = %s FOR UPDATE", (project_id,)).rowcount == 1
        with depot.start("submit", large_tree, "-p", project, "-m", "m") as running:
            while len(client.missing(project_id, all_hashes)) == len(all_hashes):
                assert running.poll() is None
            told = interrupt(running)
    assert running.returncode == 130
    assert "Run the same command again" in told
    assert "Traceback" not in told


def test_a_killed_sync_leaves_no_partial_file_and_is_gone_on_with(
    depot, project: str, large_tree: Path, tmp_path: Path
) -> None:
    depot.json("submit", large_tree, "-p", project, "-m", "m")
    work = tmp_path / "work"
    with depot.start("sync", work, "-p", project) as running:
        while not list(work.glob("large*")):
            assert running.poll() is None
        running.kill()
    there = {path.name: path.read_bytes() for path in work.glob("large*")}
    assert all(content == (large_tree / name).read_bytes() for name, content in there.items())
    done = depot.json("sync", work)
    assert done["fetched"] <= 20 - len(there)
    assert all((work / path.name).read_bytes() == path.read_bytes() for path in large_tree.glob("large*"))


def test_a_content_that_the_depot_has_is_not_sent(depot, project: str, tree: MakeTree) -> None:
    source = tree("source", {"original": b"x" * 2_000_000})
    depot.json("submit", source, "-p", project, "-m", "m")
    shutil.copy(source / "original", source / "copy")
    assert depot.json("submit", source, "-m", "m")["sent_objects"] == 0
