"""What a pattern means, and that Python and PostgreSQL agree about it."""

import time

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from depot_api.paths import path_key
from depot_api.patterns import (
    MAX_PATTERNS,
    MAX_PATTERNS_BYTES,
    Patterns,
    any_as_regex,
    as_regex,
    broken_pattern_rule,
    matches,
)


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("Content/**", "content/Hero/hero.uasset", True),
        ("Content/**", "Content", False),
        ("Content/**", "Contents/a", False),
        ("Content/*", "Content/a", True),
        ("Content/*", "Content/a/b", False),
        ("*.uasset", "a.UASSET", True),
        ("*.uasset", "Content/Hero/hero.uasset", True),
        ("*.uasset", "Content/hero.uasset/readme", False),
        ("readme", "docs/README", True),
        ("**", "a/b/c", True),
        ("**/Audio/**", "Audio/a", True),
        ("**/Audio/**", "Content/Audio/Music/a", True),
        ("**/Audio/**", "Content/Audio", False),
        ("a/**/b", "a/b", True),
        ("a/**/b", "a/x/y/b", True),
        ("a/**/b", "a/xb", False),
        ("**/x/y/**/z*", "x/x/y/z", True),
        ("T_*_N.*", "Content/T_Hero_Body_N.png", True),
        ("a*a", "a", False),
        ("a+b/(c)", "a+b/(c)", True),
        ("a.b", "aXb", False),
        ("Caf\u00e9/*", "cafe\u0301/x", True),
        ("STRASSE", "straße", True),
    ],
)
def test_meaning(pattern, path, expected):
    assert broken_pattern_rule(pattern) is None
    assert matches(pattern, path) is expected


@pytest.mark.parametrize(
    "pattern",
    ["", "/a", "a/", "a//b", "a**", "a/**b", "***", "a?b", "a\\b", "../a", "./a", "a\x00", "\ud800", "\u00e9" * 513],
)
def test_what_is_no_pattern(pattern):
    assert broken_pattern_rule(pattern)


def model(pattern: list[str], path: list[str]) -> bool:
    """The definition, without a regular expression."""
    if not pattern:
        return not path
    if pattern == ["**"]:
        return bool(path)
    if pattern[0] == "**":
        return any(model(pattern[1:], path[place:]) for place in range(len(path) + 1))
    return bool(path) and segment_model(pattern[0], path[0]) and model(pattern[1:], path[1:])


def segment_model(pattern: str, segment: str) -> bool:
    if not pattern:
        return not segment
    if pattern[0] == "*":
        return any(segment_model(pattern[1:], segment[place:]) for place in range(len(segment) + 1))
    return segment[:1] == pattern[0] and segment_model(pattern[1:], segment[1:])


LETTERS = "abA.é(+$^-# "
pattern_segments = st.one_of(st.just("**"), st.text(LETTERS + "*", min_size=1, max_size=6))
patterns = (
    st.lists(pattern_segments, min_size=1, max_size=5)
    .map("/".join)
    .filter(lambda pattern: broken_pattern_rule(pattern) is None)
)
paths = st.lists(st.text(LETTERS, min_size=1, max_size=5), min_size=1, max_size=5).map("/".join)


@pytest.fixture(scope="module")
def postgresql(cluster):
    with psycopg.connect(cluster.url()) as connection:
        yield connection


def postgresql_matches(connection: psycopg.Connection, regex: str, path: str) -> bool:
    row = connection.execute('SELECT %s COLLATE "C" ~ %s', (path_key(path), regex)).fetchone()
    assert row is not None
    return row[0]


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pattern=patterns, path=paths)
def test_python_postgresql_and_the_definition_agree(postgresql, pattern, path):
    segments = path_key(pattern).split("/")
    expected = model(segments if len(segments) > 1 else ["**", *segments], path_key(path).split("/"))
    assert matches(pattern, path) is expected
    assert postgresql_matches(postgresql, as_regex(pattern), path) is expected


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(several=st.lists(patterns, min_size=1, max_size=5), path=paths)
def test_many_patterns_are_one_regex(postgresql, several, path):
    regex = any_as_regex(several)
    assert postgresql_matches(postgresql, regex, path) is any(matches(pattern, path) for pattern in several)


def test_no_patterns():
    assert any_as_regex([]) is None


def test_hostile_patterns_are_matched_in_time(postgresql):
    started = time.monotonic()
    path = "/".join(["a" * 60] * 16)
    for pattern in ("*a" * 30 + "b/" + "**/*a/" * 100 + "c", "**/a*/" * 100 + "b", "*a" * 400 + "b"):
        assert broken_pattern_rule(pattern) is None
        assert not matches(pattern, path)
        assert not postgresql_matches(postgresql, as_regex(pattern), path)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("body", ["*a", "*ab/**/", "content"])
def test_postgresql_compiles_the_largest_list_that_is_taken(postgresql, body):
    size_bytes = MAX_PATTERNS_BYTES // MAX_PATTERNS
    several = [(f"{number}/{body * size_bytes}"[:size_bytes]).rstrip("/*") for number in range(MAX_PATTERNS)]
    assert TypeAdapter(Patterns).validate_python(several) == several
    assert not postgresql_matches(postgresql, any_as_regex(several), "/".join(["ab" * 30] * 16))


@pytest.mark.parametrize("several", [["a"] * 201, ["a" * 1024] * 33, ["a", "/b"]])
def test_lists_that_are_refused(several):
    with pytest.raises(ValidationError):
        TypeAdapter(Patterns).validate_python(several)
