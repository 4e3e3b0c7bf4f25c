"""The examples of a page of documentation, run as a reader would: in one shell, one after the other."""

import json
import re
import subprocess
from dataclasses import dataclass
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


def examples(page: str) -> list[Example]:
    text = (DOCS / page).read_text()
    found: list[Example] = []
    for block in FENCED.finditer(text):
        language, content = block.groups()
        if language == "bash":
            found.append(Example(text.count("\n", 0, block.start(2)) + 1, content, None))
        else:
            found[-1] = Example(found[-1].line, found[-1].commands, json.loads(content))
    return found


def run(page: str, directory: Path, environment: dict[str, str], timeout_seconds: float = 300) -> list[str]:
    """Run all blocks in one bash in `directory`; what each said. A command that fails names its block."""
    blocks = examples(page)
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
