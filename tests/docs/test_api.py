"""docs/api.md: its requests work, and the answers are those it shows."""

import json

import pytest

from tests.docs.pages import examples, matches, run


def test_every_request_works_and_every_answer_is_as_shown(shell, tmp_path):
    said = run("api.md", tmp_path, shell)
    for example, answered in zip(examples("api.md"), said, strict=True):
        if example.answer is not None:
            assert matches(example.answer, json.loads(answered)), f"docs/api.md:{example.line}: {answered}"


@pytest.mark.parametrize(
    ("shown", "answered", "fits"),
    [
        ({"a": 1}, {"a": 1}, True),
        ({"a": 1}, {"a": 2}, False),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"a": 1, "…": "…"}, {"a": 1, "b": 2}, True),
        ({"a": "urn:…"}, {"a": "urn:x"}, True),
        ({"a": "urn:…"}, {"a": "http:x"}, False),
        ({"a": "…"}, {"a": None}, True),
        ([1, "…"], [1, 2, 3], True),
        ([1], [1, 2], False),
        ([1, 2], [1], False),
    ],
)
def test_what_an_answer_may_differ_in(shown, answered, fits):
    assert matches(shown, answered) is fits
