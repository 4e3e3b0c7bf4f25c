"""Content leaves the store's disk only when two verified copies lie elsewhere, and only what was looked at goes."""

import json
import os
import random

import dagster as dg
import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from depot_api.blobstore.layout import Layout
from depot_api.blobstore.store import BlobStore
from depot_ops.assets.tiering import blob_tiering
from depot_ops.blobs.mirror import check_complete, check_lag
from depot_ops.blobs.records import open_records
from depot_ops.blobs.scrub import ScrubOptions, open_scrubber
from depot_ops.cli import app
from depot_ops.evidence import Status
from depot_ops.tiering import evict as evicting
from tests.depot_ops.blobs.conftest import Copies, copies

__all__ = ["copies"]

POLICY = "{version: 1, rules: [{name: all, storage_class: STANDARD, keep_on_disk: false}]}"
CONTENT = random.Random(1).randbytes(200_000)


class Depot:
    """A store whose one cold object lies in its mirror and in the bucket too."""

    def __init__(self, copies: Copies, shelf, history) -> None:
        self.copies, self.shelf, self.history = copies, shelf, history
        self.cold = self.add(CONTENT)

    def add(self, content: bytes, days_old: float = 1):
        blob = self.copies.put(content)[0]
        self.copies.record(self.history.url, [blob])
        self.history.version(blob.sha256, path=f"Content/{blob.sha256}", days_old=days_old)
        self.copies.mirror()
        self.push(blob)
        return blob

    def push(self, blob, storage_class: str = "STANDARD") -> None:
        body = self.copies.in_mirror(blob).read_bytes()
        self.shelf.client.put_object(
            Bucket=self.shelf.name, Key=self.shelf.key(blob.sha256), Body=body, StorageClass=storage_class
        )

    def harm(self, copy: str, harm: str, blob) -> None:
        path, client = self.copies.in_mirror(blob), self.shelf.client
        where = {"Bucket": self.shelf.name, "Key": self.shelf.key(blob.sha256)}
        content = path.read_bytes()
        bad = {"flip": content[:-9] + bytes([content[-9] ^ 1]) + content[-8:], "truncate": content[:-1]}
        if harm == "archive":
            self.push(blob, "GLACIER")
        elif harm == "remove":
            path.unlink() if copy == "mirror" else client.delete_object(**where)
        elif copy == "mirror":
            path.write_bytes(bad[harm])
        else:
            client.put_object(**where, Body=bad[harm])

    def is_evicted(self, blob) -> bool:
        with psycopg.connect(self.history.url) as db:
            row = db.execute("SELECT evicted_at FROM blobs WHERE sha256 = %s", (bytes.fromhex(blob.sha256),)).fetchone()
        return row[0] is not None


@pytest.fixture
def depot(copies, configured, history, depot_database, policy_path, monkeypatch) -> Depot:
    policy_path.write_text(POLICY)
    environment = {
        "ASSET_STORAGE_PATH": str(copies.root),
        "ASSET_STORAGE_REPLICA_PATH": str(copies.mirror_root),
        "DATABASE_OWNER_URL": depot_database.owner_url,
        "TIER_CACHE_DAYS": "0",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Depot(copies, configured, history)


def evict(*options: str, code: int = 0) -> dict:
    done = CliRunner().invoke(app, ["tier", "evict", "--json", *options])
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


def test_cold_content_goes_and_comes_back(depot, monkeypatch):
    assert evict()["cold_objects"] == 1
    assert depot.copies.in_store(depot.cold).exists()
    gone = evict("--delete")
    assert (gone["evicted_objects"], gone["freed_bytes"]) == (1, depot.cold.stored_bytes)
    assert not depot.copies.in_store(depot.cold).exists()
    assert depot.is_evicted(depot.cold)
    assert evict("--delete")["cold_objects"] == 0
    assert depot.copies.store.heal(depot.cold)
    depot.copies.store.verify(depot.cold)
    monkeypatch.setenv("TIER_CACHE_DAYS", "1")  # what was just read stays
    back = evict("--delete")
    assert (back["returned_objects"], back["cold_objects"]) == (1, 0)
    assert not depot.is_evicted(depot.cold)


def test_what_the_policy_keeps_stays(depot, policy_path):
    policy_path.write_text("{version: 1, rules: []}")
    assert evict("--delete")["cold_objects"] == 0
    policy_path.write_text(POLICY)
    small = depot.add(b"small")
    assert evict("--delete")["evicted_objects"] == 1
    assert depot.copies.in_store(small).exists()


def test_with_a_copy_less_it_stays(depot):
    """Whatever happened to a copy, and to whichever of the two; an archived one cannot be proved either."""
    harms = [(copy, harm) for copy in ("mirror", "bucket") for harm in ("flip", "truncate", "remove")]
    blobs = {one: depot.add(random.Random(str(one)).randbytes(150_000)) for one in [*harms, ("bucket", "archive")]}
    for (copy, harm), blob in blobs.items():
        depot.harm(copy, harm, blob)
    result = evict("--delete", code=1)
    assert (result["evicted_objects"], result["kept_objects"]) == (1, len(blobs))
    kept = {(one["copy_name"], one["sha256"]) for one in result["kept"]}
    assert kept == {(copy, blob.sha256) for (copy, _), blob in blobs.items()}
    for blob in blobs.values():
        depot.copies.store.verify(blob)
        assert not depot.is_evicted(blob)


def test_at_night_it_goes_before_it_is_archived(depot, policy_path, monkeypatch):
    """Archived, its copy in the bucket could not be read any more."""
    policy_path.write_text(POLICY.replace("STANDARD", "GLACIER"))
    for evicts in ("false", "true"):
        monkeypatch.setenv("TIER_EVICT", evicts)
        depot.push(depot.cold)
        with dg.DagsterInstance.ephemeral() as instance:
            done = dg.materialize([blob_tiering], instance=instance)
        metadata = done.asset_materializations_for_node("blob_tiering")[0].metadata
        assert metadata["evicted_objects"].value == (evicts == "true")
        assert depot.shelf.storage_class(depot.cold.sha256) == "GLACIER"
    assert not depot.copies.in_store(depot.cold).exists()


def test_what_is_sent_again_while_it_goes_stays(depot, monkeypatch):
    """The upload comes after the copies were proved, and before the file goes."""
    take = evicting._take

    def sent_again(path, looked_at, aside):
        depot.copies.put(CONTENT)
        return take(path, looked_at, aside)

    monkeypatch.setattr(evicting, "_take", sent_again)
    assert evict("--delete")["evicted_objects"] == 0
    depot.copies.store.verify(depot.cold)


def test_a_record_of_content_sent_again_has_no_mark(depot):
    evict("--delete")
    with psycopg.connect(depot.history.url) as db:
        db.execute("UPDATE blobs SET verified_at = now(), stored_bytes = stored_bytes")
    assert not depot.is_evicted(depot.cold)


def test_a_reader_who_has_begun_reads_to_the_end(depot):
    chunks = depot.copies.store.open(depot.cold).stored_chunks(50_000)
    first = next(chunks)
    evict("--delete")
    assert not depot.copies.in_store(depot.cold).exists()
    assert first + b"".join(chunks) == depot.copies.in_mirror(depot.cold).read_bytes()


def test_no_check_misses_it(depot, depot_database):
    warm = depot.add(random.Random(2).randbytes(1000))
    evict("--delete")

    def scrubbed():
        with (
            open_records(depot_database.dump_url) as records,
            open_scrubber(depot.copies.root, depot.copies.mirror_root, records, ScrubOptions()) as scrubber,
        ):
            return {
                (one.copy_name, one.sha256) for one in scrubber.scrub([depot.cold.sha256[:2], warm.sha256[:2]]).damaged
            }

    assert scrubbed() == set()
    assert check_lag(depot.copies.root, depot.copies.mirror_root, 0).status is Status.HEALTHY
    assert check_complete(depot.copies.mirror_root, depot_database.dump_url, 0).status is Status.HEALTHY
    depot.copies.in_mirror(depot.cold).unlink()
    depot.copies.in_store(warm).unlink()
    assert scrubbed() == {("mirror", depot.cold.sha256), ("store", warm.sha256)}


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 255), st.integers(2, 9))
def test_only_the_file_that_was_looked_at_goes(tmp_path_factory, byte, copies_count):
    """Whatever replaced it meanwhile is put back."""
    root = tmp_path_factory.mktemp("store")
    store = BlobStore(root)
    store.prepare()
    path = Layout(root).object_path(f"{byte:02x}" + "0" * 62)
    path.write_bytes(b"looked at")
    os.utime(path, (1, 1))
    looked_at = evicting._OnDisk(path.name[:64], path.stat())
    others = [store.temporary_file() for _ in range(copies_count)]
    for other in others:
        other.write_bytes(b"sent again")
        other.replace(path)
    assert not evicting._take(path, looked_at, store.temporary_file())
    assert path.read_bytes() == b"sent again"
    assert evicting._take(path, evicting._OnDisk(path.name[:64], path.stat()), store.temporary_file())
    assert not path.exists()
    assert not evicting._take(path, looked_at, store.temporary_file())
    store.close()
