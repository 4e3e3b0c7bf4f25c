"""The examples of a page of documentation, run as a reader would: in one shell, one after the other."""

import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"
FENCED = re.compile(r"^```(bash|json)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Stands for anything: for a value, for the members of an object not shown, and for further items of a list.
DIFFERS = "…"


@dataclass(frozen=True)
class Example:
    """A block of commands, the line it begins at, and the answer that the page shows for it."""

    line: int
    commands: str
    answer: Any


def examples(page: str, section: str = "") -> list[Example]:
    """Those of a page, or of the part below one of its headings."""
    text = (DOCS / page).read_text()
    heading = re.search(rf"^(#+) {re.escape(section)}$", text, re.MULTILINE) if section else None
    begin = heading.end() if heading else 0
    following = re.compile(rf"^#{{1,{len(heading[1])}}} ", re.MULTILINE).search(text, begin) if heading else None
    found: list[Example] = []
    for block in FENCED.finditer(text, begin, following.start() if following else len(text)):
        language, content = block.groups()
        if language == "bash":
            found.append(Example(text.count("\n", 0, block.start(2)) + 1, content, None))
        else:
            found[-1] = Example(found[-1].line, found[-1].commands, json.loads(content))
    assert found, f"{page} has no examples{f' in {section}' if section else ''}"
    return found


def run(
    page: str,
    directory: Path,
    environment: dict[str, str],
    section: str = "",
    timeout_seconds: float = 600,
    instead: Mapping[str, str] | None = None,
) -> list[str]:
    """Run the blocks in one bash in `directory`; what each said. A command that fails names its block.

    `instead` has what is different here from what the page says, such as a directory.
    """
    blocks = examples(page, section)
    for shown, ours in (instead or {}).items():
        assert any(shown in block.commands for block in blocks), f"{page} does not say {shown}"
        blocks = [replace(block, commands=block.commands.replace(shown, ours)) for block in blocks]
    files = [directory / f"said-{number}" for number in range(len(blocks))]
    script = "set -euo pipefail\n" + "\n".join(
        f"echo {page}:{block.line} >&2\nexec > {file}\n{block.commands}"
        for block, file in zip(blocks, files, strict=True)
    )
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_seconds,
    )
    said = [file.read_text() for file in files if file.exists()]
    assert done.returncode == 0, f"{done.stderr}\n{said[-1]}"
    return said


def matches(shown: Any, answered: Any) -> bool:
    """Whether an answer is what the page shows."""
    if shown == DIFFERS:
        return True
    if isinstance(shown, str) and DIFFERS in shown:
        return isinstance(answered, str) and shown.partition(DIFFERS)[0] == answered[: shown.index(DIFFERS)]
    if isinstance(shown, dict):
        return (
            isinstance(answered, dict)
            and (DIFFERS in shown or shown.keys() == answered.keys())
            and all(name in answered and matches(shown[name], answered[name]) for name in shown if name != DIFFERS)
        )
    if isinstance(shown, list):
        whole = shown[-1:] != [DIFFERS]
        named = shown if whole else shown[:-1]
        return (
            isinstance(answered, list)
            and (len(answered) == len(named) if whole else len(answered) >= len(named))
            and all(matches(*pair) for pair in zip(named, answered, strict=False))
        )
    return bool(shown == answered)
