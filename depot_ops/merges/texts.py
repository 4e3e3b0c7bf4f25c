"""Three-way merge of texts, line by line. What comes out is whole: no conflict marker is ever in it."""

import json
from collections import Counter
from typing import Any

from merge3 import Merge3

MAX_LINE_PAIRS = 20_000_000  # equal lines of two sides to look at: some seconds, whatever somebody has submitted


def merge_texts(base: bytes | None, source: bytes, target: bytes) -> bytes | None:
    """What both sides made of `base` (None: neither had one), with their line endings; None when a person has to.

    That is when both changed the same lines, when a content is no UTF-8 text, when two JSON documents
    would not give one, and when it would take too long to find out.
    """
    texts = (base or b"", source, target)
    if not all(map(_is_text, texts)):
        return None
    # Of bytes these end with \n, \r\n and \r only, and keep them.
    before, ours, theirs = (text.splitlines(keepends=True) for text in texts)
    if _line_pairs(before, ours) > MAX_LINE_PAIRS or _line_pairs(before, theirs) > MAX_LINE_PAIRS:
        return None
    merged = _merged(Merge3(before, ours, theirs))
    if merged is None or (_is_json(source) and _is_json(target) and not _is_json(merged)):
        return None
    return merged


def _merged(merge: Merge3[bytes]) -> bytes | None:
    lines: list[bytes] = []
    for region in merge.merge_regions():
        kind, start, end, *_ = region
        if kind == "conflict":
            return None
        taken = {"unchanged": merge.base, "same": merge.a, "a": merge.a, "b": merge.b}[kind]
        lines += taken[start:end]
    return b"".join(lines)


def _is_text(content: bytes) -> bool:
    try:
        return "\0" not in content.decode()
    except UnicodeDecodeError:
        return False


def _line_pairs(before: list[bytes], after: list[bytes]) -> int:
    """How often the matcher compares at most; difflib itself leaves out the lines that are everywhere in `after`."""
    counts = Counter(after)
    everywhere = len(after) // 100 + 1
    return sum(counts[line] for line in before if counts[line] <= everywhere)


def _is_json(content: bytes) -> bool:
    """A JSON document with no name twice in an object, which two additions of the same one would give."""
    try:
        return isinstance(json.loads(content, object_pairs_hook=_object), dict | list)
    except (ValueError, RecursionError):
        return False


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a name is there twice")
    return made
