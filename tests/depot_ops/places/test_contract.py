"""What every place promises, whatever it is made of: the same tests for a directory and for two kinds of S3."""

import hashlib
import random
import secrets
from concurrent.futures import ThreadPoolExecutor

import pytest

from depot_ops.places import PlaceConflict, PlaceDamaged, PlaceError, PlaceMissing, open_place
from depot_ops.places.object_storage import PART_BYTES


@pytest.fixture(params=["directory", "rclone_s3", "moto_s3"])
def url(request, tmp_path, monkeypatch) -> str:
    if request.param == "directory":
        (tmp_path / "a place").mkdir()
        return (tmp_path / "a place").as_uri()
    endpoint = request.getfixturevalue(request.param)
    for name, value in endpoint.environment.items():
        monkeypatch.setenv(name, value)
    return endpoint.bucket(f"bucket-{secrets.token_hex(4)}") + "/some/prefix"


@pytest.fixture
def place(url):
    return open_place(url)


@pytest.fixture
def make(tmp_path):
    def file(content: bytes):
        path = tmp_path / secrets.token_hex(4)
        path.write_bytes(content)
        return path, hashlib.sha256(content).hexdigest()

    return file


def test_what_is_put_is_got(place, make, tmp_path):
    path, sha256 = make(b"content")
    place.put("objects/ab/one", path, sha256)
    assert place.get("objects/ab/one", tmp_path / "back") == sha256
    assert (tmp_path / "back").read_bytes() == b"content"
    assert place.sha256("objects/ab/one") == sha256


@pytest.mark.parametrize("size_bytes", [0, PART_BYTES, PART_BYTES + 1])
def test_any_size(place, make, tmp_path, size_bytes):
    path, sha256 = make(random.Random(size_bytes).randbytes(size_bytes))
    place.put("big", path, sha256)
    assert place.get("big", tmp_path / "back") == sha256
    assert [(one.key, one.size_bytes) for one in place.list("")] == [("big", size_bytes)]


def test_nothing_is_overwritten(place, make):
    first, other = make(b"first"), make(b"other")
    place.put("key", *first)
    place.put("key", *first)
    with pytest.raises(PlaceConflict, match="key"):
        place.put("key", *other)
    assert place.sha256("key") == first[1]


@pytest.mark.parametrize("size_bytes", [5, PART_BYTES + 5])
def test_a_damaged_file_is_not_taken(place, make, size_bytes):
    path, sha256 = make(bytes(size_bytes))
    path.write_bytes(bytes(size_bytes - 1) + b"\1")
    with pytest.raises(PlaceDamaged):
        place.put("key", path, sha256)
    assert list(place.list("")) == []
    with pytest.raises(PlaceMissing):
        place.sha256("key")


def test_what_is_missing(place, tmp_path):
    with pytest.raises(PlaceMissing, match="no/such"):
        place.get("no/such", tmp_path / "back")
    assert list(tmp_path.glob("*back*")) == []
    place.delete("no/such")


def test_lists_are_in_the_order_of_keys_and_by_prefix(place, make):
    keys = ["a-b", "a/b", "a/c/d", "a0", "b", "a.d/x"]
    for key in keys:
        place.put(key, *make(key.encode()))
    assert [one.key for one in place.list("")] == sorted(keys)
    assert [one.key for one in place.list("a/")] == ["a/b", "a/c/d"]
    assert [one.key for one in place.list("a/c")] == ["a/c/d"]
    assert list(place.list("z")) == []


def test_deleted(place, make):
    place.put("one", *make(b"1"))
    place.delete("one")
    assert list(place.list("")) == []
    place.put("one", *make(b"2"))


def test_many_at_once(place, make, tmp_path):
    files = [make(f"content {n}".encode()) for n in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: place.put(f"o/{n:02d}", *files[n]), range(40)))
        got = list(pool.map(lambda n: place.get(f"o/{n:02d}", tmp_path / f"back{n}"), range(40)))
    assert got == [sha256 for _, sha256 in files]


@pytest.mark.parametrize(
    "url", ["ftp://x/y", "relative", "file:relative", "file://host/x", "s3:///prefix", "s3://a:b@c/"]
)
def test_what_is_no_place(url):
    with pytest.raises(PlaceError, match="Use file:///directory or s3://bucket/prefix"):
        open_place(url)
