"""depot merge, resolve and merges, with an executor that works beside them."""

from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any
from uuid import uuid4

import pytest

from depot_api.client import DepotClient
from depot_api.client.models import ProjectRole
from depot_ops.merges.executor import Executor
from depot_ops.merges.worker import keep_working


@pytest.fixture
def worker(api) -> Iterator[None]:
    """Takes up what merges need done."""
    stop = Event()

    def work() -> None:
        with DepotClient(api.url, api.token) as client:
            for _ in keep_working(Executor(client, "test", stop=stop), stop, print):
                pass

    thread = Thread(target=work)
    thread.start()
    yield
    stop.set()
    thread.join()


@pytest.fixture
def work(depot, project: str, tree, tmp_path: Path) -> tuple[Path, Path]:
    """Workspaces of main and of the branch dev, which begins with two files."""
    main, dev = tree("main", {"Hero/hero.png": b"1", "plain": b"1"}), tmp_path / "dev"
    depot.json("submit", main, "-p", project, "-m", "first")
    depot.json("branch", "create", "dev", "-p", project, "--parent", "main")
    depot.json("sync", dev, "-p", project, "-b", "dev")
    return main, dev


@pytest.fixture
def conflicted(depot, project: str, work: tuple[Path, Path]) -> tuple[Path, Path]:
    """Both changed the hero, and only dev changed the other one."""
    main, dev = work
    (main / "Hero/hero.png").write_bytes(b"main's")
    (dev / "Hero/hero.png").write_bytes(b"dev's")
    (dev / "plain").write_bytes(b"2")
    depot.json("submit", main, "-m", "on main")
    depot.json("submit", dev, "-m", "on dev")
    return main, dev


def begin(depot: Any, project: str, *options: str, exit_code: int = 0) -> dict[str, Any]:
    made = depot.json("merge", "dev", "main", "-p", project, *options, exit_code=exit_code)
    merge: dict[str, Any] = made["merge"]
    return merge


def test_a_merge_without_conflicts_lands(depot, project: str, work: tuple[Path, Path], worker) -> None:
    main, dev = work
    (dev / "plain").write_bytes(b"2")
    depot.json("submit", dev, "-m", "two")
    plan = depot.json("merge", "dev", "main", "-p", project, "--preview")
    assert [(one["path"], one["action"]) for one in plan["paths"]] == [("plain", "integrate")]
    assert depot.json("merges", "-p", project)["merges"] == []
    done = depot("merge", "dev", "main", "-p", project, "-m", "capes", "--wait")
    assert (done.returncode, done.stdout) == (0, "Merged as changelist 3: 1 path.\n")
    depot.json("sync", main)
    assert (main / "plain").read_bytes() == b"2"
    listed = depot("merges", "-p", project, "--status", "merged")
    assert "dev@2" in listed.stdout
    assert "capes" in listed.stdout
    assert depot("merges", "-p", project, "--status", "pending,conflicted").stdout == "No merges.\n"


def test_a_conflict_is_shown_chosen_and_lands(depot, project: str, conflicted: tuple[Path, Path], worker) -> None:
    main, _ = conflicted
    preview = depot("merge", "dev", "main", "-p", project, "--preview")
    assert preview.returncode == 1
    assert "both_edited   Hero/hero.png" in preview.stdout
    merge = begin(depot, project, "--wait", exit_code=1)
    assert (merge["status"], merge["unresolved_count"]) == ("conflicted", 1)
    shown = depot("resolve", merge["id"])
    assert (shown.returncode, shown.stdout.splitlines()) == (
        0,
        [
            "both_edited  Hero/hero.png",
            "    source: #3 by admin in changelist 3",
            "    target: #2 by admin in changelist 2",
            "1 conflict, 1 to resolve.",
        ],
    )
    [conflict] = depot.json("resolve", merge["id"])["conflicts"]
    assert conflict["authors"]["source"] == {"name": "admin", "changelist_no": 3}
    opened = depot.json("resolve", merge["id"], "hero/HERO.png", "--open")
    assert {side: Path(file).read_bytes() for side, file in opened.items()} == {
        "source": b"dev's",
        "target": b"main's",
    }
    assert {Path(file).name for file in opened.values()} == {"hero@source.png", "hero@target.png"}
    chosen = depot("resolve", merge["id"], "Hero/hero.png", "--source", "--reason", "newer")
    assert chosen.stdout == "Hero/hero.png: source.\nNone is left: the merge goes on by itself.\n"
    waited(depot, project, merge["id"])
    assert "chosen: source (newer)" in depot("resolve", merge["id"]).stdout
    depot.json("sync", main)
    assert (main / "Hero/hero.png").read_bytes() == b"dev's"


def waited(depot: Any, project: str, merge_id: str) -> None:
    """Until it is merged."""
    for _ in range(40):
        merged = depot.json("merges", "-p", project, "--status", "merged")["merges"]
        if merge_id in [one["id"] for one in merged]:
            return
    raise AssertionError(depot.json("merges", "-p", project))


def test_a_version_of_ones_own(depot, project: str, conflicted: tuple[Path, Path], worker, tmp_path: Path) -> None:
    main, _ = conflicted
    own = tmp_path / "both.png"
    own.write_bytes(b"of both")
    merge = begin(depot, project, "--wait", exit_code=1)
    resolved = depot.json("resolve", merge["id"], "Hero/hero.png", "--with", own)
    assert (resolved["conflict"]["resolution"], resolved["unresolved_count"]) == ("supplied", 0)
    waited(depot, project, merge["id"])
    depot.json("sync", main)
    assert (main / "Hero/hero.png").read_bytes() == b"of both"


def test_many_at_once_and_landing_later(depot, project: str, conflicted: tuple[Path, Path], worker) -> None:
    merge = begin(depot, project, "--no-submit", "--wait", exit_code=1)
    assert depot.json("resolve", merge["id"], "--pattern", "Villain/**", "--target")["resolved_count"] == 0
    done = depot("resolve", merge["id"], "--pattern", "Hero/**", "--target")
    assert done.stdout == "1 conflict: target.\nNone is left: the merge goes on by itself.\n"
    assert depot.json("merges", "-p", project, "--status", "merged")["merges"] == []
    assert "lands" in depot("merges", "--submit", merge["id"]).stdout
    waited(depot, project, merge["id"])


def test_a_staged_merge_is_done_for_now_and_can_be_cancelled(
    depot, project: str, work: tuple[Path, Path], worker
) -> None:
    _, dev = work
    (dev / "plain").write_bytes(b"2")
    depot.json("submit", dev, "-m", "two")
    staged = depot("merge", "dev", "main", "-p", project, "--no-submit", "--wait")
    assert staged.returncode == 0
    assert staged.stdout.startswith("Staged 1 path. To land them: depot merges --submit ")
    merge_id = staged.stdout.split()[-1]
    assert depot.json("merges", "--cancel", merge_id)["merge"]["status"] == "cancelled"
    again = depot("merges", "--cancel", merge_id)
    assert again.returncode == 1
    assert "cancelled" in again.stderr


def test_a_gate_that_refuses_is_told(depot, project: str, work: tuple[Path, Path], worker) -> None:
    _, dev = work
    (dev / "plain").write_bytes(b"2")
    depot.json("submit", dev, "-m", "two")
    depot.json("branch", "protect", "main", "-p", project, "--review")
    refused = depot("merge", "dev", "main", "-p", project, "--wait")
    assert refused.returncode == 1
    assert "submit_gate failed" in refused.stdout


def test_nobody_executes_and_the_wait_ends(depot, project: str, conflicted: tuple[Path, Path]) -> None:
    done = depot("merge", "dev", "main", "-p", project, "--wait", "--timeout", "0.5")
    assert done.returncode == 3
    assert "has begun" in done.stdout
    assert depot("merge", "dev", "main", "-p", project).returncode == 0
    [second, first] = depot.json("merges", "-p", project, "--status", "pending")["merges"]
    for merge in (first, second):
        depot.json("merges", "--cancel", merge["id"])


def test_what_the_depot_refuses(api, depot, project: str, work: tuple[Path, Path]) -> None:
    user = api.user()
    with DepotClient(api.url, api.token) as client:
        client.set_member(client.find_project(project).id, user.name, ProjectRole.VIEWER)
    assert depot("merge", "dev", "main", "-p", project, DEPOT_TOKEN=user.token).returncode == 1
    assert depot("merge", "dev", "nowhere", "-p", project).returncode == 1
    assert depot("merge", "main", "main", "-p", project).returncode == 1
    assert depot("resolve", str(uuid4())).returncode == 1


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["merge", "a", "b", "--preview", "--wait"], "--preview"),
        (["merges", "--status", "done"], "conflicted"),
        (["merges", "--submit", str(uuid4()), "--cancel", str(uuid4())], "--cancel"),
        (["resolve", str(uuid4()), "a", "--source", "--target"], "different choices"),
        (["resolve", str(uuid4()), "--source"], "--pattern"),
        (["resolve", str(uuid4()), "a", "--pattern", "*", "--source"], "--pattern"),
        (["resolve", str(uuid4()), "--pattern", "*"], "--pattern"),
        (["resolve", str(uuid4()), "--open"], "--open"),
        (["resolve", str(uuid4()), "a", "--with", "nothing-there"], "nothing-there"),
    ],
)
def test_wrong_usage(depot, project: str, arguments: list[str], why: str) -> None:
    options = ["-p", project] if arguments[0] != "resolve" else []
    done = depot(*arguments, *options)
    assert done.returncode == 2
    assert why in done.stderr


def test_a_path_without_a_conflict(depot, project: str, conflicted: tuple[Path, Path], worker) -> None:
    merge = begin(depot, project, "--wait", exit_code=1)
    done = depot("resolve", merge["id"], "plain", "--source")
    assert done.returncode == 2
    assert "not in conflict" in done.stderr
