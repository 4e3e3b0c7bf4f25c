"""The framing of many objects in one stream."""

import hashlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from depot_api.blobstore import pack


def read(stream: bytes, cuts: list[int]) -> list[tuple[str, bytes]]:
    reader, entries, ended = pack.PackReader(), [], 0
    places = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    for start, end in itertools.pairwise(places):
        for event in reader.feed(stream[start:end]):
            if isinstance(event, pack.EntryStart):
                entries.append([event.sha256, b"", event.length_bytes])
            elif isinstance(event, pack.EntryData):
                entries[-1][1] += bytes(event.data)
            else:
                ended += 1
    reader.finish()
    assert ended == len(entries)
    assert all(len(content) == length for _, content, length in entries)
    return [(sha256, content) for sha256, content, _ in entries]


@given(contents=st.lists(st.binary(max_size=200), max_size=6), cuts=st.lists(st.integers(0, 10_000), max_size=8))
def test_any_cutting_reads_the_same(contents, cuts):
    entries = [(hashlib.sha256(content).hexdigest(), content) for content in contents]
    stream = b"".join(pack.encode_header(sha256, len(content)) + content for sha256, content in entries)
    assert read(stream, cuts) == entries


@given(cut=st.integers(1, 44))
def test_an_end_inside_an_entry_is_told(cut):
    stream = pack.encode_header("00" * 32, 5) + b"12345"
    with pytest.raises(pack.PackError, match="ends"):
        read(stream[:cut], [])


def test_an_entry_that_should_go_alone_is_refused():
    with pytest.raises(pack.PackError, match="alone"):
        read(pack.encode_header("00" * 32, pack.MAX_ENTRY_BYTES + 1), [])
