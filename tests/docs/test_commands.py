"""Every `depot` and `depot-ops` that a page names is there, with the options it is given."""

import re
import shlex
from pathlib import Path

import pytest
import typer.main
from typer.core import TyperGroup

from depot_api.cli.main import app as depot
from depot_ops.cli import app as depot_ops
from tests.docs.pages import DOCS

COMMANDS = {"depot": typer.main.get_command(depot), "depot-ops": typer.main.get_command(depot_ops)}
PAGES = [DOCS.parent / "README.md", *sorted(DOCS.rglob("*.md"))]
BLOCK = re.compile(r"^```(?:bash|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECRET = re.compile(r"\$\{?\w+_(?:URL|PASSWORD|TOKEN)\b|://[^/\s:]+:[^/\s]+@")
INLINE = re.compile(r"`(depot(?:-ops)? [^`]+)`")


def named(page: Path) -> list[list[str]]:
    """The words of each command on the page."""
    text = page.read_text()
    lines = "\n".join(BLOCK.findall(text)).replace("\\\n", " ").splitlines() + INLINE.findall(text)
    found = []
    for line in lines:
        words = shlex.shlex(line, posix=True, punctuation_chars=True)
        words.whitespace_split = True
        try:
            split = list(words)
        except ValueError:  # a line of a longer string or of another program
            continue
        for place, word in enumerate(split):
            if word in COMMANDS and (place == 0 or not split[place - 1].startswith("/")):
                end = next((i for i in range(place, len(split)) if re.fullmatch(r"[();<>|&]+", split[i])), len(split))
                found.append(split[place:end])
    return found


def wrong(words: list[str]) -> str | None:
    command, rest = COMMANDS[words[0]], words[1:]
    context = command.make_context(words[0], [], resilient_parsing=True)
    while isinstance(command, TyperGroup) and rest and not rest[0].startswith("-"):
        following = command.get_command(context, rest[0])
        if following is None and rest[0].isupper():  # stands for any
            return None
        if following is None:
            return f"no command {rest[0]!r}"
        command, rest = following, rest[1:]
    known = {
        option for parameter in command.get_params(context) for option in parameter.opts + parameter.secondary_opts
    }
    asked = {word.partition("=")[0] for word in rest if re.fullmatch(r"--[a-z][a-z-]*(=.*)?", word)}
    return f"no option {', '.join(sorted(asked - known))}" if asked - known else None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS.parent)))
def test_every_command_of_a_page_exists(page):
    failed = {" ".join(words): problem for words in named(page) if (problem := wrong(words))}
    assert failed == {}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS.parent)))
def test_no_command_is_given_a_password_as_an_argument(page):
    """Everybody on the host would see it in the list of processes; `export` is the shell's own."""
    assert [words for words in named(page) if any(SECRET.search(word) for word in words)] == []


def test_what_is_not_there_is_found():
    assert wrong(["depot-ops", "backup", "everything"]) == "no command 'everything'"
    assert wrong(["depot-ops", "restore", "--to", "DIR", "--fast"]) == "no option --fast"
    assert wrong(["depot-ops", "restore", "--to", "DIR"]) is None
