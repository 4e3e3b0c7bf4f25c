"""Every scenario of the files beside this one: what is planned, what is asked, and what lands.

A scenario is a title after `#`, then a line each:

    main: add a 1; add b 1     a changelist on main; also edit, delete, move FROM TO [content],
                               take PATH BRANCH [content], which integrates a single path by hand
    branch dev main            dev starts at main's head
    merge dev main             and below it, until it lands:
      ask PATH KIND            a conflict; all of them are listed
      choose PATH CHOICE       source, target, or =content
      same                     nothing is changed on the target
    main is a=1 b=2            all that lives there now
"""

import re
from pathlib import Path

import pytest

FILES = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))
SCENARIOS = {
    f"{file.stem}: {title.strip()}": body
    for file in FILES
    for title, body in re.findall(r"^# (.*)\n((?:[^#\n].*\n|\n)*)", file.read_text(), re.MULTILINE)
}


def test_there_are_many():
    assert len(SCENARIOS) >= 60


@pytest.mark.parametrize("title", SCENARIOS)
def test_scenario(merging, title):
    lines = [line.strip() for line in SCENARIOS[title].splitlines() if line.strip()]
    while lines:
        words = (line := lines.pop(0)).split()
        if words[0] == "branch":
            merging.branch(words[1], words[2])
        elif words[0] == "merge":
            below = []
            while lines and lines[0].split()[0] in ("ask", "choose", "same"):
                below.append(lines.pop(0).split())
            run_merge(merging, words[1], words[2], below)
        elif words[1] == "is":
            expected = dict(pair.split("=", 1) for pair in words[2:])
            assert merging.heads(words[0]) == expected, line
        else:
            branch, _, changes = line.partition(":")
            merging.submit(branch, [change.split() for change in changes.split(";")])


def run_merge(merging, source: str, target: str, below: list[list[str]]) -> None:
    before = merging.heads(target)
    merge = merging.work(merging.begin(source, target))
    asked = {words[1]: words[2] for words in below if words[0] == "ask"}
    assert {path: one["kind"] for path, one in merging.conflicts(merge).items()} == asked
    assert merge["status"] == ("conflicted" if asked else "merged")
    for words in below:
        if words[0] == "choose":
            merging.resolve(merge, words[1], words[2])
    if merge["status"] == "conflicted":
        assert merging.heads(target) == before
        merge = merging.work(merge)
    assert merge["status"] == "merged"
    if ["same"] in below:
        assert merging.heads(target) == before
        assert merge["paths_count"] == 0
