"""The page of pitfalls names tests: all of them are there."""

import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
ROWS = [line for line in (REPOSITORY / "docs" / "pitfalls.md").read_text().splitlines() if line.startswith("| ")][1:]
NAMED = re.compile(r"`([\w/]+\.py)::(test_\w+)`")


def test_every_row_names_tests_that_exist():
    assert len(ROWS) > 30
    for row in ROWS:
        named = NAMED.findall(row.split(" | ")[-1])
        assert named, row
        for file, test in named:
            (found,) = (REPOSITORY / "tests").rglob(file)
            assert f"def {test}(" in found.read_text(), f"{file}::{test}"
