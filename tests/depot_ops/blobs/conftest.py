"""A store, its mirror, and ways to damage what lies in them."""

import hashlib
import random
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from depot_api.blobstore.bucket import BucketCopy
from depot_api.blobstore.layout import Layout, StoredBlob
from depot_api.blobstore.store import BlobStore
from depot_ops.blobs.mirror import Mirrored, open_mirror
from depot_ops.blobs.remote import push_target
from depot_ops.settings import ObjectStorageSettings, load
from depot_ops.tiering.bucket import TieredBucket


@dataclass
class Copies:
    """A store with its mirror below a test's directory."""

    store: BlobStore
    root: Path
    mirror_root: Path

    def put(self, *contents: bytes) -> list[StoredBlob]:
        staged = []
        for content in contents:
            with self.store.writer() as writer:
                writer.write(content)
                staged.append(writer.finish())
        return self.store.commit(staged)

    def mirror(self) -> Mirrored:
        with open_mirror(self.root, self.mirror_root) as opened:
            return opened.reconcile()

    def damage(self, root: Path, seed: random.Random, victim: StoredBlob, other: StoredBlob) -> str:
        """Do something bad to an object in one copy; what was done."""
        path = Layout(root).object_path(victim.sha256)
        kind, content = hurt(seed, path.read_bytes(), Layout(root).object_path(other.sha256).read_bytes())
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
        return kind

    def in_store(self, blob: StoredBlob) -> Path:
        return Layout(self.root).object_path(blob.sha256)

    def in_mirror(self, blob: StoredBlob) -> Path:
        return Layout(self.mirror_root).object_path(blob.sha256)

    def objects(self, root: Path | None = None) -> dict[str, bytes]:
        """name → stored bytes, of the store where nothing else is said"""
        return {path.name: path.read_bytes() for path in ((root or self.root) / "objects").rglob("*.bin.gz")}

    def mirrored(self) -> dict[str, bytes]:
        return self.objects(self.mirror_root)

    def mirrored_count(self) -> int:
        """Without reading them."""
        return sum(1 for _ in (self.mirror_root / "objects").rglob("*.bin.gz"))

    def some_contents(self, seed: int, count: int) -> list[bytes]:
        """All different; some compress, some do not, some have the same size."""
        return [
            hashlib.shake_128(f"{seed} {n}".encode()).digest(700) * (1 + n % 3) + b"text " * (n % 50)
            for n in range(count)
        ]

    def put_some(self, seed: int, count: int) -> list[StoredBlob]:
        return self.put(*self.some_contents(seed, count))

    def record(self, url: str, blobs: list[StoredBlob]) -> None:
        """As an upload does, without anybody's receipt; written an hour ago."""
        with psycopg.connect(url) as owner:
            for blob in blobs:
                owner.execute(
                    """INSERT INTO blobs (sha256, size_bytes, stored_bytes, stored_crc32, verified_at)
                       VALUES (%s, %s, %s, %s, now() - interval '1 hour')""",
                    (bytes.fromhex(blob.sha256), blob.size_bytes, blob.stored_bytes, blob.stored_crc32),
                )


def hurt(seed: random.Random, content: bytes, other: bytes) -> tuple[str, bytes | None]:
    """What is done to an object, and what lies under its name then: None is nothing."""
    kind = seed.choice(["flip", "truncate", "remove", "swap", "append"])
    if kind == "flip":
        at = seed.randrange(len(content))
        return kind, content[:at] + bytes([content[at] ^ 1 << seed.randrange(8)]) + content[at + 1 :]
    done = {"truncate": content[: -seed.randint(1, 9)], "remove": None, "append": content + b"more", "swap": other}
    return kind, done[kind]


class Bucket:
    """The store's bucket on a server that compares nothing, past our own code."""

    def __init__(self, endpoint, url: str) -> None:
        self._s3, self._name = endpoint.client(), url.removeprefix("s3://").partition("/")[0]

    def objects(self) -> dict[str, bytes]:
        """name → stored bytes"""
        listed = self._s3.list_objects_v2(Bucket=self._name, Prefix="depot/objects/").get("Contents", ())
        return {one["Key"].rpartition("/")[2]: self._body(one["Key"]) for one in listed}

    def put(self, sha256: str, content: bytes | None) -> None:
        """None removes it."""
        if content is None:
            self._s3.delete_object(Bucket=self._name, Key=self._key(sha256))
        else:
            self._s3.put_object(Bucket=self._name, Key=self._key(sha256), Body=content)

    def damage(self, seed: random.Random, victim: StoredBlob, other: StoredBlob) -> str:
        kind, content = hurt(seed, *(self._body(self._key(blob.sha256)) for blob in (victim, other)))
        self.put(victim.sha256, content)
        return kind

    def _body(self, key: str) -> bytes:
        return self._s3.get_object(Bucket=self._name, Key=key)["Body"].read()

    @staticmethod
    def _key(sha256: str) -> str:
        return f"depot/objects/{sha256[:2]}/{sha256}.bin.gz"


@pytest.fixture
def bucket(rclone_s3, monkeypatch, copies) -> TieredBucket:
    environment = {
        **rclone_s3.environment,
        "BLOB_COPY_URL": rclone_s3.bucket(f"bucket-{secrets.token_hex(4)}") + "/depot",
        "ASSET_STORAGE_PATH": str(copies.root),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return push_target()


@pytest.fixture
def raw_bucket(bucket, rclone_s3) -> Bucket:
    return Bucket(rclone_s3, str(bucket))


@pytest.fixture
def fetched(bucket) -> BucketCopy:
    return BucketCopy(str(bucket).rstrip("/"), load(ObjectStorageSettings))


@pytest.fixture
def copies(tmp_path: Path) -> Iterator[Copies]:
    store = BlobStore(tmp_path / "store", tmp_path / "mirror")
    store.prepare()
    yield Copies(store, tmp_path / "store", tmp_path / "mirror")
    store.close()
