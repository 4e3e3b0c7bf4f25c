"""The main job from end to end, on the real stack: as the README's tour, and then with things broken on purpose."""

import filecmp
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest

from depot_ops.local.ports import any_free
from tests.docs.pages import run as run_page

BIN = Path(sys.executable).parent
READY_SECONDS = 120


class Stack:
    """`depot-ops up` on free ports and a directory of its own."""

    def __init__(self, data_dir: Path, *options: str, **settings: str) -> None:
        self.data_dir = data_dir
        self.ports = ["--api-port", str(any_free()), "--dagster-port", str(any_free())]
        self.options = options
        self.settings = settings
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [BIN / "depot-ops", "up", "--data-dir", self.data_dir, *self.ports, *self.options]
        environment = {**os.environ, **self.settings}
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self.process.stdout is not None
        said = []
        for line in self.process.stdout:
            said.append(line)
            if "Ctrl-C stops" in line:
                return
        raise AssertionError("".join(said))

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(READY_SECONDS)

    @property
    def told(self) -> dict[str, object]:
        return json.loads((self.data_dir / "stack.json").read_text())

    def environment(self) -> dict[str, str]:
        """As of a shell that has read stack.env."""
        command = ["sh", "-c", '. "$0" && env -0', self.data_dir / "stack.env"]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return dict(line.split("=", 1) for line in told.split("\0") if line)

    def run(self, *command: str, code: int = 0) -> dict[str, object]:
        """Run `depot …` or `depot-ops …` with --json."""
        done = subprocess.run(
            [BIN / command[0], *command[1:], "--json"],
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout)

    def graphql(self, query: str) -> dict[str, object]:
        answer = httpx.post(f"{self.told['dagster_url']}/graphql", json={"query": query}, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="depot-stack-"))
    made.chmod(0o711)  # a server's unprivileged account has to pass
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def stack(directory: Path) -> Iterator[Stack]:
    running = Stack(directory / "data")
    running.start()
    yield running
    assert running.stop() == 0
    assert not (running.data_dir / "stack.json").exists()


@pytest.fixture(scope="module")
def tree(directory: Path) -> Path:
    """A real tree that every machine has: the standard library of Python."""
    target = directory / "tree"
    ignored = shutil.ignore_patterns("site-packages", "__pycache__")
    shutil.copytree(sysconfig.get_path("stdlib"), target, ignore=ignored, symlinks=False)
    return target


@pytest.fixture(scope="module")
def library(stack: Stack, tree: Path) -> tuple[str, ...]:
    """The tree submitted as changelist 1 of a project; the options that name it."""
    stack.run("depot", "project", "create", "library")
    where = ("--project", "library", "--branch", "main")
    first = stack.run("depot", "submit", str(tree), *where, "-m", "all of it")
    assert first["number"] == 1
    assert first["added"] > 1000
    return where


def same_trees(one: Path, other: Path) -> bool:
    files = {path.relative_to(one) for path in one.rglob("*") if path.is_file() and ".depot" not in path.parts}
    others = {path.relative_to(other) for path in other.rglob("*") if path.is_file() and ".depot" not in path.parts}
    _, different, odd = filecmp.cmpfiles(one, other, files, shallow=False)
    return files == others and not different and not odd


def test_what_the_stack_tells(stack):
    told = stack.told
    for name in ("stack.json", "stack.env"):
        assert stat.S_IMODE((stack.data_dir / name).stat().st_mode) == 0o600
    dagster = {"dagster-postgres", "dagster-webserver", "dagster-daemon"}
    assert set(told["pids"]) == {"postgres", "api", "wal-collector"} | dagster
    assert all(psutil.pid_exists(pid) for pid in told["pids"].values())
    assert httpx.get(f"{told['api_url']}/health").json()["status"] == "ok"
    credentials = {"username": told["admin_username"], "password": told["admin_password"]}
    assert httpx.post(f"{told['api_url']}/auth/token", json=credentials).status_code == 200
    with psycopg.connect(told["database_url"]) as owner:
        settings = dict(
            owner.execute(
                "SELECT name, setting FROM pg_settings WHERE name IN ('data_checksums', 'wal_level', 'archive_mode')"
            ).fetchall()
        )
    assert settings == {"data_checksums": "on", "wal_level": "replica", "archive_mode": "on"}
    secrets = [told["admin_password"], told["admin_token"]]
    lines = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    assert not [line for line in lines for secret in secrets if secret in line], "a secret is in the process list"


def test_the_webserver_answers_from_its_storage(stack):
    """With a plain postgresql:// URL it would not, while everything else looks well."""
    data = stack.graphql(
        "{ runsOrError { __typename } repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }"
    )
    assert data["runsOrError"]["__typename"] == "Runs"
    assert data["repositoriesOrError"]["nodes"] == [{"name": "__repository__"}]


def test_a_second_start_says_what_to_do(stack, directory):
    again = subprocess.run(
        [BIN / "depot-ops", "up", "--data-dir", stack.data_dir], capture_output=True, text=True, check=False
    )
    assert again.returncode == 1
    assert "already" in again.stderr and len(again.stderr.strip().splitlines()) == 1
    elsewhere = [BIN / "depot-ops", "up", "--data-dir", directory / "other", "--no-dagster", *stack.ports[:2]]
    taken = subprocess.run(elsewhere, capture_output=True, text=True, check=False)
    assert taken.returncode == 1
    assert "--api-port" in taken.stderr and len(taken.stderr.strip().splitlines()) == 1


def test_a_tree_goes_in_and_comes_out_byte_for_byte(stack, library, tree, directory):
    again = stack.run("depot", "submit", str(tree), *library, "-m", "nothing new")
    assert (again["number"], again["sent_objects"]) == (None, 0)
    stack.run("depot", "sync", str(directory / "copy"), *library)
    assert same_trees(tree, directory / "copy")
    (tree / "this.py").write_text("print('changed')\n")
    changed = stack.run("depot", "submit", str(tree), "-m", "one file")
    assert (changed["number"], changed["edited"], changed["sent_objects"]) == (2, 1, 1)
    stack.run("depot", "sync", str(directory / "copy"))
    assert same_trees(tree, directory / "copy")
    stack.run("depot", "verify", str(directory / "copy"))


def test_the_night_proves_its_backup_and_finds_later_damage(stack):
    night = stack.run("depot-ops", "run", "nightly_maintenance")
    assert night["dagster_status"] == "SUCCESS"
    checks = {check["check"]: check["passed"] for check in night["checks"]}
    assert checks == dict.fromkeys(
        ("service_health", "restorable_listing", "full_read", "checksum", "row_counts", "backup_age"), True
    )
    (dump,) = (stack.data_dir / "backups").glob("*.dump")
    whole = dump.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for damage in (whole[: len(whole) * 6 // 10], bytes(flipped)):
        dump.write_bytes(damage)
        stack.run("depot-ops", "backup", "verify", code=1)
        found = stack.run("depot-ops", "run", "backup_verification", code=1)
        assert found["dagster_status"] == "FAILURE"
        assert not {check["check"]: check["passed"] for check in found["checks"]}["checksum"]
    dump.write_bytes(whole)
    stack.run("depot-ops", "backup", "verify")


@pytest.mark.parametrize("section", ["Prove the backups again", "Restore a dump beside", "Tell the monitoring"])
def test_what_the_runbook_says(stack, tmp_path, section):
    """What needs neither a standby nor damage; tests/docs has the rest."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    run_page("runbook.md", tmp_path, {**os.environ, **stack.environment(), "PATH": path}, section)


@pytest.fixture(scope="module")
def checkout(stack: Stack, directory: Path) -> Path:
    """As after `make up`; its Python has a small library, with links in it as Debian's has."""
    made = directory / "checkout"
    library, commands = made / "library", made / ".venv" / "bin"
    for path in (library / "json", commands):
        path.mkdir(parents=True)
    for name in ("this.py", "json/__init__.py"):
        (library / name).write_text(f"# {name}\n")
    (made / "elsewhere.py").write_text("# of the machine\n")
    (library / "sitecustomize.py").symlink_to(made / "elsewhere.py")
    (library / "simplejson").symlink_to("json")
    for name in ("depot", "depot-ops"):
        (commands / name).symlink_to(BIN / name)
    (commands / "python").write_text(f"#!/bin/sh\necho {library}\n")
    (commands / "python").chmod(0o755)
    (made / ".depot").symlink_to(stack.data_dir)
    return made


def test_the_readme_works_when_pasted(stack, checkout):
    path = os.environ["PATH"]
    bare = {"PATH": path, "PYTHONPATH": os.environ.get("PYTHONPATH", ""), "LC_ALL": "C.UTF-8"}
    here = {"/tmp/depot-tour": str(checkout / "tour")}
    night = {"depot-ops run nightly_maintenance": ":"}  # it has a test of its own
    tour = run_page("../README.md", checkout, bare, "Five minutes", instead={**here, **night})
    assert "the same\n" in "".join(tour)
    ready = {**bare, **stack.environment(), "PATH": f"{BIN}{os.pathsep}{path}"}
    run_page("../README.md", checkout, ready, "A day's work", instead=here)


@pytest.mark.parametrize("name", ["api", "postgres"])
def test_a_killed_process_comes_back(stack, library, name):
    before = stack.told["pids"][name]
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: stack.told["pids"].get(name, before) != before)

    def healthy() -> bool:
        try:
            return httpx.get(f"{stack.told['api_url']}/health", timeout=6).status_code == 200
        except httpx.TransportError:
            return False

    wait_until(healthy)
    assert "library" in {project["name"] for project in stack.run("depot", "project", "list")["projects"]}


def test_after_kill_9_the_stack_goes_on_with_its_data(stack, library, tree, directory):
    pids = stack.told["pids"].values()
    stack.process.kill()
    stack.process.wait()
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids))
    stack.start()
    stack.run("depot", "sync", str(directory / "afterwards"), *library)
    assert same_trees(tree, directory / "afterwards")
