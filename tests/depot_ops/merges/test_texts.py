"""Laws of the merge of texts, and what it leaves to people."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from depot_ops.merges.texts import merge_texts

# Few different lines, so that they meet; with all line endings, and without one at the end.
LINES = st.lists(st.sampled_from([b"a", b"b", b"c", b"", b"{", b"=======", "ü".encode()]), max_size=8)
TEXTS = st.builds(
    lambda lines, ending, ends: ending.join(lines) + (ending if ends else b""),
    LINES,
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
    st.booleans(),
)
ANYTHING = st.one_of(TEXTS, st.binary(max_size=40))


@given(TEXTS, TEXTS)
def test_what_one_side_did_is_taken(base, changed):
    assert merge_texts(base, changed, base) == changed
    assert merge_texts(base, base, changed) == changed


@given(TEXTS, TEXTS)
def test_what_both_sides_did_is_done_once(base, changed):
    assert merge_texts(base, changed, changed) == changed


@given(TEXTS, TEXTS, TEXTS)
def test_it_does_not_matter_which_side_is_which(base, source, target):
    assert merge_texts(base, source, target) == merge_texts(base, target, source)


@given(TEXTS, TEXTS, TEXTS)
def test_each_line_that_comes_out_went_in_so_no_marker_ever_does(base, source, target):
    merged = merge_texts(base, source, target)
    if merged is not None:
        went_in = {line for text in (base, source, target) for line in text.splitlines(keepends=True)}
        assert set(merged.splitlines(keepends=True)) <= went_in


@given(st.none() | ANYTHING, ANYTHING, ANYTHING)
def test_whatever_is_given_it_answers_bytes_or_nothing(base, source, target):
    merged = merge_texts(base, source, target)
    assert merged is None or isinstance(merged.decode(), str)


@given(LINES, LINES)
def test_changes_far_apart_are_both_taken(above, below):
    def text(first, last):
        return b"\n".join([*first, b"one", b"two", b"three", *last])

    merged = merge_texts(text([], []), text(above, []), text([], below))
    assert merged == text(above, below)


@pytest.mark.parametrize(
    ("base", "source", "target", "merged"),
    [
        (b"a\nb\nc\n", b"A\nb\nc\n", b"a\nb\nC\n", b"A\nb\nC\n"),
        (b"a\r\nb\r\nc\r\n", b"A\r\nb\r\nc\r\n", b"a\r\nb\r\nC", b"A\r\nb\r\nC"),
        (b"a\nb\nc", b"A\nb\nc", b"a\nb\nc\nd", b"A\nb\nc\nd"),
        (b"a\nb\nc\n", b"b\nc\n", b"a\nb\nc\nd\n", b"b\nc\nd\n"),
        (None, b"a\n", b"a\n", b"a\n"),
        (None, b"a\n", b"b\n", None),
        (b"a\n", b"b\n", b"c\n", None),
        (b"a\nb\nc\n", b"a\nB\nc\n", b"a\nb\nC\n", None),  # side by side
        (b"a\nb\n", b"a\r\nb\r\n", b"a\nB\n", None),  # every line changed its ending
        (b"a\0b\n", b"a\0b\n", b"a\0c\n", None),
        (b"a\n", b"a\n", b"\xff\xfea\n", None),
        (b"a\n", "a\n".encode("utf-16"), b"a\n", None),
    ],
)
def test_examples(base, source, target, merged):
    assert merge_texts(base, source, target) == merged


def test_json_stays_json():
    base = b'{\n"a": 1\n}\n'
    ours = b'{\n"x": 0,\n"a": 1\n}\n'
    assert merge_texts(base, ours, b'{\n"a": 1\n,"y": 2}\n') == b'{\n"x": 0,\n"a": 1\n,"y": 2}\n'
    assert merge_texts(base, ours, b'{\n"a": 1\n,"x": 2}\n') is None  # a name twice
    assert merge_texts(b"[\n\n]", b"[\n1\n\n]", b"[\n\n2\n]") is None  # no comma between


def test_what_would_take_for_ever_is_left_to_people():
    # Each line fifty times on both sides, in another order: too few to be left out, too many to compare.
    base = [b"%d\n" % (n % 20_000) for n in range(1_000_000)]
    texts = b"".join(base), b"".join(sorted(base)), b"".join(reversed(base))
    begun = time.process_time()
    assert merge_texts(*texts) is None
    assert time.process_time() - begun < 5


def test_a_large_text_is_merged():
    lines = [b"%d;some value;%d\n" % (n, n * n) for n in range(100_000)]
    ours, theirs = list(lines), list(lines)
    ours[10], theirs[99_000] = b"ours\n", b"theirs\n"
    both = [*lines[:10], b"ours\n", *lines[11:99_000], b"theirs\n", *lines[99_001:]]
    assert merge_texts(b"".join(lines), b"".join(ours), b"".join(theirs)) == b"".join(both)
