"""Path patterns: `*` stands for anything within one segment, `**` for any number of whole directories.

A pattern is anchored at the project's root, except that one without a slash is a file name in any directory, so that
`*.uasset` means every such file. Case and Unicode form do not count, as nowhere in the depot (`paths.path_key`).
The service matches in Python and in PostgreSQL; both regular expressions are made here, by the same function.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated

from pydantic import AfterValidator, Field

from depot_api.paths import path_key

MAX_PATTERN_BYTES = 1024  # a longer one matches no path
MAX_PATTERNS = 200  # in one list, which a person can still read
MAX_PATTERNS_BYTES = 32_768  # of one list: half of what PostgreSQL still compiles into one regular expression

_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f\\:?"<>|\ud800-\udfff]')
_ANY_DIRECTORIES = re.compile(r"(?:^|/)\*\*(?:/\*\*)*(?:/|$)")
# Python's matcher backtracks, so that `*a*a*a` would take forever on `aaaa…`; PostgreSQL's does not, and has no atomic
# groups. The first place where a piece of a pattern fits is as good as any later one, so both match the same paths.
_ATOMIC, _PLAIN = "(?>", "(?:"


def broken_pattern_rule(pattern: str) -> str | None:
    """The rule that `pattern` breaks, in words, or None."""
    if _FORBIDDEN.search(pattern):
        return 'holds a character that no path has: a control character or one of \\ : ? " < > |'
    if not 1 <= len(pattern.encode()) <= MAX_PATTERN_BYTES:
        return f"must have 1 to {MAX_PATTERN_BYTES} bytes in UTF-8"
    segments = pattern.split("/")
    if "" in segments:
        return "has an empty segment: no leading /, no //, and for all that a directory holds write directory/**"
    if "." in segments or ".." in segments:
        return "must not hold . or .. as a segment"
    if any("**" in segment and segment != "**" for segment in segments):
        return "has ** beside other characters; ** is a segment of its own, as in Content/**/*.uasset"
    return None


def _checked(pattern: str) -> str:
    if rule := broken_pattern_rule(pattern):
        raise ValueError(f"{pattern[:100]!r} {rule}")
    return pattern


def _compilable(patterns: list[str]) -> list[str]:
    size_bytes = sum(len(pattern.encode()) for pattern in patterns)
    if size_bytes > MAX_PATTERNS_BYTES:
        raise ValueError(f"the patterns have {size_bytes} bytes together, and at most {MAX_PATTERNS_BYTES} are taken")
    return patterns


Pattern = Annotated[str, AfterValidator(_checked)]
Patterns = Annotated[list[Pattern], Field(max_length=MAX_PATTERNS), AfterValidator(_compilable)]


def matches(pattern: str, path: str) -> bool:
    return _compiled(pattern).fullmatch(path_key(path)) is not None


def as_regex(pattern: str) -> str:
    """For PostgreSQL's `path_key ~ …`: anchored, and safe as the value of a parameter."""
    return f"^{_translate(pattern, _PLAIN)}$"


def any_as_regex(patterns: Sequence[str]) -> str | None:
    """One regular expression for all of them; None when there are none. PostgreSQL keeps only 32 compiled ones."""
    return f"^(?:{'|'.join(_translate(pattern, _PLAIN) for pattern in patterns)})$" if patterns else None


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(_translate(pattern, _ATOMIC), re.DOTALL)


def _translate(pattern: str, group: str) -> str:
    key = path_key(pattern)
    if "/" not in key:
        key = f"**/{key}"
    first, *others = [_run(run, group) for run in _ANY_DIRECTORIES.split(key)]
    if not others:
        return first
    *between, last = others
    found = "".join(f"{group}(?:[^/]*/)*?{run}/)" for run in between)
    return (f"{first}/" if first else "") + found + (f"(?:[^/]*/)*{last}" if last else ".+")


def _run(segments: str, group: str) -> str:
    """Segments without `**`."""
    return "/".join(_segment(segment, group) for segment in segments.split("/"))


def _segment(segment: str, group: str) -> str:
    start, *others = [re.escape(literal) for literal in segment.split("*")]
    if not others:
        return start
    *between, end = others
    return start + "".join(f"{group}[^/]*?{literal})" for literal in between) + f"[^/]*{end}"
