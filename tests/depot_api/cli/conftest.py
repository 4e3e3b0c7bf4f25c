import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.forked import run_depot

DEPOT = [sys.executable, "-c", "from depot_api.cli import main; main()"]


@dataclass(frozen=True)
class Command:
    """The `depot` command as a process of its own, signed in through the environment."""

    environment: dict[str, str]
    directory: Path

    def __call__(self, *arguments: str | Path, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        return run_depot([*map(str, arguments)], self.environment | environment, self.directory, stdin, 60)

    def json(self, *arguments: str | Path, exit_code: int = 0) -> Any:
        """The document on stdout."""
        done = self(*arguments, "--json")
        assert done.returncode == exit_code, done.stderr
        return json.loads(done.stdout)

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*DEPOT, *map(str, arguments)],
            env=self.environment,
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture
def bare_depot(tmp_path: Path) -> Command:
    """The command with nobody signed in."""
    here = tmp_path / "here"
    here.mkdir()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DEPOT_")}
    return Command(inherited | {"XDG_CONFIG_HOME": str(tmp_path / "config")}, here)


@pytest.fixture
def depot(api, bare_depot: Command) -> Command:
    signed_in = {"DEPOT_URL": api.url, "DEPOT_TOKEN": api.token}
    return Command(bare_depot.environment | signed_in, bare_depot.directory)


@pytest.fixture
def project(depot: Command) -> str:
    """The name of a project of this test alone."""
    name = f"project-{uuid4().hex}"
    depot.json("project", "create", name)
    return name


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[str, dict[str, bytes]], Path]:
    """Makes a directory with these files."""

    def make(name: str, files: dict[str, bytes]) -> Path:
        root = tmp_path / name
        for path, content in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
        return root

    return make
