"""A store, its mirror, and ways to damage what lies in them."""

import hashlib
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from depot_api.blobstore.layout import Layout, StoredBlob
from depot_api.blobstore.store import BlobStore
from depot_ops.blobs.mirror import Mirrored, open_mirror


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
        kind = seed.choice(["flip", "truncate", "remove", "swap", "append"])
        if kind == "flip":
            content = bytearray(path.read_bytes())
            content[seed.randrange(len(content))] ^= 1 << seed.randrange(8)
            path.write_bytes(content)
        elif kind == "truncate":
            path.write_bytes(path.read_bytes()[: -seed.randint(1, 9)])
        elif kind == "remove":
            path.unlink()
        elif kind == "append":
            path.write_bytes(path.read_bytes() + b"more")
        else:
            shutil.copyfile(Layout(root).object_path(other.sha256), path)
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


@pytest.fixture
def copies(tmp_path: Path) -> Iterator[Copies]:
    store = BlobStore(tmp_path / "store", tmp_path / "mirror")
    store.prepare()
    yield Copies(store, tmp_path / "store", tmp_path / "mirror")
    store.close()
