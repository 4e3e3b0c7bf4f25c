"""A bucket that is not what it should be is never taken for an empty one, and no secret is told."""

import hashlib
import logging
import secrets

import pytest

from depot_ops.local.ports import any_free
from depot_ops.places import PlaceDamaged, PlaceError, PlaceMissing, open_place


@pytest.fixture
def client(moto_s3, monkeypatch):
    for name, value in moto_s3.environment.items():
        monkeypatch.setenv(name, value)
    return moto_s3.client()


@pytest.fixture
def url(moto_s3, client) -> str:
    return moto_s3.bucket(f"bucket-{secrets.token_hex(4)}")


def test_a_bucket_that_is_not_there(client):
    with pytest.raises(PlaceError, match="s3://no-such-bucket/"):
        open_place("s3://no-such-bucket")


def test_a_server_that_does_not_answer(url, monkeypatch, caplog):
    monkeypatch.setenv("S3_ENDPOINT_URL", f"http://127.0.0.1:{any_free()}")
    monkeypatch.setenv("S3_ATTEMPTS", "1")
    with caplog.at_level(logging.DEBUG), pytest.raises(PlaceError, match="does not answer") as raised:
        open_place(url)
    assert not isinstance(raised.value, PlaceMissing)
    assert "secret-for-tests" not in str(raised.value) + repr(raised.value.__cause__) + caplog.text


def test_a_bucket_that_is_deleted_while_it_is_used(url, client, tmp_path):
    place = open_place(url)
    client.delete_bucket(Bucket=url.removeprefix("s3://"))
    with pytest.raises(PlaceError, match="NoSuchBucket") as raised:
        place.get("key", tmp_path / "back")
    assert not isinstance(raised.value, PlaceMissing)
    with pytest.raises(PlaceError):
        list(place.list(""))


def test_an_object_that_was_changed_behind_our_back(url, client, tmp_path):
    place, path = open_place(url), tmp_path / "file"
    path.write_bytes(b"content")
    sha256 = hashlib.sha256(b"content").hexdigest()
    place.put("key", path, sha256)
    client.put_object(Bucket=url.removeprefix("s3://"), Key="key", Body=b"c0ntent", Metadata={"sha256": sha256})
    with pytest.raises(PlaceDamaged, match="SHA-256"):
        place.get("key", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_encryption_is_asked_for(url, client, tmp_path, monkeypatch):
    monkeypatch.setenv("S3_ENCRYPTION", "AES256")
    path = tmp_path / "file"
    path.write_bytes(b"content")
    open_place(url).put("key", path, hashlib.sha256(b"content").hexdigest())
    assert client.head_object(Bucket=url.removeprefix("s3://"), Key="key")["ServerSideEncryption"] == "AES256"
