"""Every command, walked: help with an example, --json, and a row in docs/depot-command.md."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from depot_api.cli.main import app

DOCUMENT = Path(__file__).parents[4] / "docs" / "depot-command.md"


def walk(command: Any, name: str = "depot") -> Iterator[tuple[str, Any]]:
    """Commands by their whole names; a group is not one."""
    if not hasattr(command, "commands"):
        yield name, command
        return
    for part, below in command.commands.items():
        yield from walk(below, f"{name} {part}")


TREE = typer.main.get_command(app)
COMMANDS = dict(walk(TREE))


def example(command: Any) -> str:
    """The one example of a command's help."""
    (found,) = re.findall(r"^Example: (.+)$", command.help, re.MULTILINE)
    return str(found)


def meaning(command: Any) -> str:
    return str(command.help).split("\n\n")[0].replace("\n", " ").partition(". ")[0].removesuffix(".")


def row(name: str) -> str:
    return f"| `{name}` | {meaning(COMMANDS[name])} | `{example(COMMANDS[name])}` |"


def test_the_walk_finds_the_commands() -> None:
    assert {"depot submit", "depot diff", "depot review approve", "depot label set"} <= COMMANDS.keys()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_has_an_example_that_the_command_understands(name: str) -> None:
    command = COMMANDS[name]
    prefix = f"{name} "
    assert f"{example(command)} ".startswith(prefix)
    command.make_context(name, shlex.split(example(command).removeprefix(name)))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_json_and_words_for_each_option(name: str) -> None:
    parameters = COMMANDS[name].params
    assert "--json" in [option for parameter in parameters for option in parameter.opts]
    assert [parameter.name for parameter in parameters if not parameter.help] == []


def test_every_group_says_what_it_is() -> None:
    groups = [command for command in TREE.commands.values() if hasattr(command, "commands")]
    assert [group.name for group in groups if not group.help] == []


def test_the_document_has_a_row_for_each_command_and_no_other() -> None:
    rows = re.findall(r"^\| `depot .*$", DOCUMENT.read_text(), re.MULTILINE)
    wanted = [row(name) for name in COMMANDS]
    assert rows == wanted, "The table has to be:\n" + "\n".join(wanted)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_is_printed(bare_depot, shell: str) -> None:
    done = bare_depot("--show-completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"complete_{shell}" in done.stdout
    assert "depot" in done.stdout


def test_completion_is_installed_for_the_user(bare_depot, tmp_path: Path) -> None:
    done = bare_depot("--install-completion", "bash", HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "depot" in (tmp_path / ".bashrc").read_text()


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("depot un", "undo\nunlock\nunshelve"), ("depot review a", "approve"), ("depot changes --sta", "--status")],
)
def test_completion_offers_what_fits(bare_depot, typed: str, offered: str) -> None:
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    done = bare_depot(**words, _DEPOT_COMPLETE="complete_bash")
    assert sorted(done.stdout.split()) == offered.split()
