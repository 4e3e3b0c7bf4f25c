"""The operations layer's mirror and collector under a running service: nothing referred to goes, the rest does."""

import hashlib
import itertools
import os
import random
import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psycopg
import pytest

from depot_api.blobstore.bucket import BucketCopy
from depot_api.blobstore.layout import Layout
from depot_ops.blobs.collect import COLLECTOR_LOCK, CollectError, CollectPolicy, all_copies, check_collected, collect
from depot_ops.blobs.mirror import open_mirror
from depot_ops.blobs.push import Push, sizes_by_prefix
from depot_ops.blobs.records import BlobRecords
from depot_ops.blobs.restore import directory_source, of_catalogue, restore_blobs
from depot_ops.copies.copying import copy_backups
from depot_ops.places import DirectoryPlace
from depot_ops.postgres.dump_record import BackupRecord, record_path
from depot_ops.settings import ObjectStorageSettings, load
from depot_ops.tiering.bucket import TieredBucket, open_bucket
from tests.depot_ops.conftest import Estate


def object_path(root: Path, sha256: str) -> Path:
    return root / "objects" / sha256[:2] / f"{sha256}.bin.gz"


def stored(root: Path) -> set[str]:
    return {path.name.removesuffix(".bin.gz") for path in (root / "objects").rglob("*.bin.gz")}


@pytest.fixture(scope="module")
def mirrored_api(cluster, depot_template, tmp_path_factory, running_api_factory):
    """A service with a mirror; (api, root of the mirror)"""
    directory = tmp_path_factory.mktemp("collection")
    mirror = directory / "mirror"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("ASSET_STORAGE_REPLICA_PATH", str(mirror))
        with running_api_factory[1](cluster, depot_template, directory) as api:
            yield api, mirror


@pytest.fixture
def depot(mirrored_api, running_api_factory, tmp_path):
    api, mirror = mirrored_api
    made = Depot(running_api_factory[0](api), mirror, tmp_path / "backups")
    made.backups.mkdir()
    made.second.mkdir()
    made.mirror()
    backup_record(made.backups, datetime.now(UTC) + timedelta(days=1))  # one that holds nothing back
    yield made
    made.project.http.close()


class Depot:
    """A project of a service with a mirror, and the operations on its store."""

    def __init__(self, project, mirror: Path, backups: Path):
        self.project, self.mirror_root, self.backups = project, mirror, backups
        self.store_root = project.api.store
        self.second, self.open_copy = backups.with_name("second"), None

    def mirror(self):
        with open_mirror(self.store_root, self.mirror_root) as opened:
            return opened.reconcile()

    def collect(self, delete: bool = True, grace: timedelta = timedelta(0), removers=None):
        policy = CollectPolicy(self.backups, grace, delete, timedelta(0), self.open_copy)
        copies = all_copies(self.store_root, self.mirror_root)
        return collect(self.project.api.owner_url, self.store_root, removers or [copies], policy)

    def collect_all(self):
        """Mark, then remove."""
        self.collect()
        return self.collect()

    def get(self, sha256: str) -> int:
        response = self.project.http.get(f"/projects/{self.project.id}/objects/{sha256}")
        if response.status_code == 200:
            assert hashlib.sha256(response.content).hexdigest() == sha256
        return response.status_code

    def try_shelve(self, sha256: str, path: str) -> httpx.Response:
        item = {"action": "add", "path": path, "sha256": sha256}
        body = {"project_id": self.project.id, "branch_id": self.project.main, "items": [item]}
        return self.project.http.post("/shelves", json=body)

    def shelve(self, sha256: str, path: str) -> str:
        shelf = self.try_shelve(sha256, path)
        assert shelf.status_code == 201, shelf.text
        return shelf.json()["id"]

    def unshelve(self, shelf: str) -> None:
        assert self.project.http.delete(f"/shelves/{shelf}").status_code == 204


def test_a_second_collection_is_refused_while_the_first_one_lasts(depot):
    with psycopg.connect(depot.project.api.owner_url, autocommit=True) as first:
        first.execute("SELECT pg_advisory_lock(%s)", (COLLECTOR_LOCK,))
        with pytest.raises(CollectError, match="Another collection"):
            depot.collect()
    depot.collect()


def test_only_what_nothing_refers_to_goes_after_its_grace(depot):
    put = depot.project.put
    loose, submitted, shelved, opened, dropped = (put(secrets.token_bytes(50)) for _ in range(5))
    depot.project.submit([{"action": "add", "path": "a", "sha256": submitted}])
    depot.project.open([{"action": "add", "path": "b", "sha256": opened}])
    depot.shelve(shelved, "c")
    depot.unshelve(depot.shelve(dropped, "d"))
    depot.mirror()
    used_before = depot.project.http.get(f"/projects/{depot.project.id}/storage").json()

    assert depot.collect(grace=timedelta(days=1)).marked_objects == 0, "uploads within the time of grace count"
    marked = depot.collect(delete=False)
    assert marked.marked_objects >= 2
    due = depot.collect(delete=False)
    assert due.due_objects >= 2
    assert stored(depot.store_root) >= {loose, submitted, shelved, opened, dropped}, "nothing goes without --delete"
    removed = depot.collect()
    assert removed.removed_objects == due.due_objects
    for root in (depot.store_root, depot.mirror_root):
        assert stored(root) & {loose, submitted, shelved, opened, dropped} == {submitted, shelved, opened}
    assert [depot.get(sha256) for sha256 in (submitted, shelved, opened)] == [200] * 3
    assert [depot.get(sha256) for sha256 in (loose, dropped)] == [404, 404]
    used_after = depot.project.http.get(f"/projects/{depot.project.id}/storage").json()
    assert used_before["used_bytes"] - used_after["used_bytes"] == 100
    assert depot.mirror().objects_copied == 0
    assert depot.collect_all().removed_objects == 0


def test_the_time_of_grace_begins_with_the_mark(depot):
    sha256, day = depot.project.put(secrets.token_bytes(50)), timedelta(days=1)
    with psycopg.connect(depot.project.api.owner_url, autocommit=True) as owner:
        own = (day, bytes.fromhex(sha256))
        owner.execute("UPDATE upload_receipts SET received_at = now() - %s WHERE sha256 = %s", own)
        assert depot.collect(grace=day).marked_objects == 1
        assert depot.collect(grace=day).due_objects == 0
        owner.execute("UPDATE blob_tombstones SET unreferenced_at = unreferenced_at - %s WHERE sha256 = %s", own)
    assert depot.collect(grace=day).removed_objects == 1


def test_collected_content_can_come_again(depot):
    content = secrets.token_bytes(50)
    sha256 = depot.project.put(content)
    depot.collect_all()
    assert depot.get(sha256) == 404
    assert depot.project.put(content) == sha256
    assert depot.get(sha256) == 200
    assert depot.collect(grace=timedelta(days=1)).removed_objects == 0
    depot.project.submit([{"action": "add", "path": "again", "sha256": sha256}])
    assert depot.collect_all().removed_objects == 0
    assert depot.get(sha256) == 200


def test_a_reference_that_came_and_went_starts_the_time_anew(depot):
    sha256 = depot.project.put(secrets.token_bytes(50))
    depot.collect(delete=False)
    depot.unshelve(depot.shelve(sha256, "x"))
    with psycopg.connect(depot.project.api.owner_url) as owner:
        query = "SELECT count(*) FROM blob_tombstones WHERE sha256 = %s"
        assert owner.execute(query, (bytes.fromhex(sha256),)).fetchone() == (0,)
    depot.collect()
    assert object_path(depot.store_root, sha256).exists(), "it was marked just now"
    depot.collect()
    assert not object_path(depot.store_root, sha256).exists()


REFERRED = """
    SELECT encode(sha256, 'hex') FROM asset_versions WHERE project_id = %s
    UNION SELECT encode(sha256, 'hex') FROM shelf_items WHERE project_id = %s
"""


def backup_record(directory: Path, started_at: datetime) -> Path:
    record = BackupRecord(
        file=f"depot-{started_at:%Y%m%dT%H%M%SZ}.dump",
        **dict.fromkeys(("sha256", "database", "server_version", "tool_version"), "x"),
        **dict.fromkeys(("started_at", "finished_at"), started_at),
        row_counts={},
        source_objects={},
        toc_entries={},
        size_bytes=1,
        duration_seconds=1,
    )
    path, partial = directory / f"{record.file}.json", directory / "partial"
    partial.write_text(record.model_dump_json())
    partial.rename(path)  # whole, and before the dump has its name: as a backup does it
    (directory / record.file).write_bytes(b"x")
    return path


def test_what_a_kept_backup_may_refer_to_stays(depot):
    sha256 = depot.project.put(secrets.token_bytes(50))
    path = backup_record(depot.backups, datetime.now(UTC) - timedelta(seconds=5))
    depot.mirror()
    assert depot.collect_all().removed_objects == 0
    assert object_path(depot.store_root, sha256).exists()
    path.write_text("{")
    with pytest.raises(CollectError, match="nothing is collected"):
        depot.collect()
    path.unlink()
    path.with_suffix("").unlink()
    assert depot.collect().removed_objects >= 1
    assert not object_path(depot.store_root, sha256).exists()


def test_what_a_backup_at_the_second_place_may_refer_to_stays(depot, tmp_path):
    place, estate = DirectoryPlace(str(depot.second)), Estate(tmp_path / "estate")
    depot.open_copy = lambda: place
    dump, _ = estate.dump(datetime.now(UTC) - timedelta(days=2)), estate.base(0)
    depot.project.put(secrets.token_bytes(50))
    depot.mirror()
    assert depot.collect_all().removed_objects >= 1, "nothing is kept there yet"
    sha256 = depot.project.put(secrets.token_bytes(50))
    depot.mirror()
    copy_backups(estate.backup_dir, None, place)
    told = depot.collect_all()
    assert (told.backups, told.removed_objects, told.unreferenced_before) == (3, 0, datetime(2026, 1, 1, 2, tzinfo=UTC))
    assert object_path(depot.store_root, sha256).exists()
    for gone in (
        depot.second / "backups" / record_path(dump).name,
        *(depot.second / "backups").glob("base/*/*/*.json"),
    ):
        gone.unlink()
    told = depot.collect()
    assert (told.backups, told.removed_objects) == (1, 1)
    assert not object_path(depot.store_root, sha256).exists()


def test_a_second_place_that_does_not_say_what_it_keeps_stops_the_collection(depot, tmp_path):
    estate = Estate(tmp_path / "estate")
    sha256 = depot.project.put(secrets.token_bytes(50))
    depot.open_copy = lambda: DirectoryPlace(str(depot.second / "unmounted"))
    with pytest.raises(CollectError, match="there is no such directory"):
        depot.collect()
    place = DirectoryPlace(str(depot.second))
    depot.open_copy = lambda: place
    estate.dump(datetime.now(UTC) - timedelta(days=2))
    copy_backups(estate.backup_dir, None, place)
    (record,) = (depot.second / "backups").glob("*.json")
    record.write_text("{")
    with pytest.raises(CollectError, match="nothing is collected"):
        depot.collect()
    assert object_path(depot.store_root, sha256).exists()


def test_what_an_upload_left_that_never_ended_goes_too(depot):
    sha256 = depot.project.put(secrets.token_bytes(50))
    with psycopg.connect(depot.project.api.owner_url) as owner:
        for table in ("upload_receipts", "blobs"):
            owner.execute(f"DELETE FROM {table} WHERE sha256 = %s", (bytes.fromhex(sha256),))
    depot.mirror()
    assert depot.collect().adopted_objects == 1
    assert depot.collect().removed_objects >= 1
    assert sha256 not in stored(depot.store_root) | stored(depot.mirror_root)


def test_nothing_is_collected_from_a_depot_whose_backups_are_out_of_sight(depot):
    for path in depot.backups.iterdir():
        path.unlink()
    with pytest.raises(CollectError, match="no backup"):
        depot.collect()


def test_a_mirror_that_is_not_there_keeps_the_content_condemned_until_it_is_back(depot):
    sha256 = depot.project.put(secrets.token_bytes(50))
    depot.mirror()
    depot.collect()
    away = depot.mirror_root.with_name("unplugged")
    depot.mirror_root.rename(away)
    with pytest.raises(CollectError, match="Mount the disk"):
        depot.collect()
    assert depot.get(sha256) == 404
    away.rename(depot.mirror_root)
    depot.collect()
    assert sha256 not in stored(depot.store_root) | stored(depot.mirror_root)


def test_a_collector_that_dies_while_it_removes_leaves_nothing_that_can_be_referred_to(depot):
    content = secrets.token_bytes(50)
    sha256 = depot.project.put(content)
    opened = depot.project.open([])
    depot.collect()

    def die(hashes):
        assert sha256 in hashes
        object_path(depot.store_root, sha256).unlink()
        raise OSError("killed")

    with pytest.raises(CollectError, match="killed"):
        depot.collect(removers=[die])
    item = {"action": "add", "path": "dangling", "sha256": sha256}
    depot.project.http.post(f"/changelists/{opened}/items", json={"items": [item]})
    submitted = depot.project.http.post(f"/changelists/{opened}/submit")
    shelved = depot.try_shelve(sha256, "dangling")
    assert (submitted.is_success, shelved.is_success) == (False, False), (submitted.text, shelved.text)
    depot.project.put(content)
    depot.project.submit([item])
    assert depot.collect_all().removed_objects == 0
    assert depot.get(sha256) == 200


@pytest.mark.parametrize("condemned", [False, True])
def test_after_a_recovery_every_mark_starts_anew(depot, condemned):
    """Backups from after the moment that was recovered to may refer to what was marked before it."""
    sha256 = depot.project.put(secrets.token_bytes(50))
    depot.collect()
    if condemned:
        with pytest.raises(CollectError):
            depot.collect(removers=[refuse])
    with psycopg.connect(depot.project.api.owner_url) as owner:
        owner.execute("UPDATE blob_tombstones SET history = 'of another timeline'")
    assert depot.collect().adopted_objects == condemned
    assert sha256 in stored(depot.store_root)
    depot.collect()
    assert sha256 not in stored(depot.store_root)


def refuse(hashes):
    raise OSError("not now")


def test_the_check_tells_of_the_last_collection(depot):
    depot.collect(delete=False)
    assert check_collected(depot.store_root, timedelta(days=1)).status == "healthy"
    assert check_collected(depot.store_root, timedelta(seconds=-1)).status == "unhealthy"
    assert check_collected(depot.backups, timedelta(0)).status == "unknown"


SEEDS = int(os.environ.get("COLLECTOR_SEEDS", "1"))
PATIENCE_SECONDS = 120  # in which a race collects something


class Race:
    """Few contents, no grace at all: what is uploaded is often collected before it is referred to."""

    def __init__(self, depot: Depot, bucket: TieredBucket, seed: int):
        self.depot, self.bucket, self.seed = depot, bucket, seed
        fetched = BucketCopy(str(bucket).rstrip("/"), load(ObjectStorageSettings))
        self.removers = [all_copies(depot.store_root, depot.mirror_root, fetched)]
        self.contents = [b"race %d %d %s" % (seed, n, depot.project.id.encode()) for n in range(16)]
        self.never_submitted = set(self.contents[8:])  # or soon all is referred to, and nothing left to collect
        self.done = threading.Event()
        self.removed_objects = 0

    def use(self, worker: int) -> set[str]:
        """What was submitted. It goes on until something was collected beside it, on a slow machine too."""
        chance, submitted = random.Random(100 * self.seed + worker), set()
        deadline = time.monotonic() + PATIENCE_SECONDS
        for n in itertools.count():
            if (n >= 20 and self.removed_objects) or time.monotonic() > deadline:
                break
            content, path = chance.choice(self.contents), f"race/{worker}/{n}"
            sha256 = hashlib.sha256(content).hexdigest()
            sent = self.depot.project.http.put(f"/projects/{self.depot.project.id}/objects/{sha256}", content=content)
            assert sent.status_code in (201, 503), sent.text
            if content in self.never_submitted or chance.random() < 0.4:
                shelf = self.depot.try_shelve(sha256, path)
                assert shelf.status_code < 500, shelf.text
                if shelf.is_success:
                    assert self.depot.get(sha256) == 200
                    self.depot.unshelve(shelf.json()["id"])
            elif self.submits(sha256, path):
                assert self.depot.get(sha256) == 200
                submitted.add(sha256)
        return submitted

    def submits(self, sha256: str, path: str) -> bool:
        opened = self.depot.project.open([])
        item = {"action": "add", "path": path, "sha256": sha256}
        added = self.depot.project.http.post(f"/changelists/{opened}/items", json={"items": [item]})
        ended = self.depot.project.http.post(f"/changelists/{opened}/submit")
        assert max(added.status_code, ended.status_code) < 500, (added.text, ended.text)
        return added.is_success and ended.is_success

    def collect(self) -> int:
        while not self.done.is_set():
            self.removed_objects += self.depot.collect(removers=self.removers).removed_objects
        return self.removed_objects

    def copy(self) -> int:
        """Whatever lies in the store goes to the mirror and the bucket; what nobody condemned comes back from there."""
        passes = 0
        while True:
            self.depot.mirror()
            Push(Layout(self.depot.store_root), self.bucket).reconcile()
            with psycopg.connect(self.depot.project.api.owner_url, autocommit=True) as owner:
                source = directory_source(self.depot.mirror_root)
                records = BlobRecords(owner)
                restore_blobs(of_catalogue(owner), [source], self.depot.store_root, 2, still_wanted=records.of)
            passes += 1
            if self.done.is_set():
                return passes

    def left(self) -> dict[str, set[str]]:
        """What is in each copy of what was ever sent."""
        everything = {hashlib.sha256(content).hexdigest() for content in self.contents}
        there = {sha256 for _, sizes in sizes_by_prefix(self.bucket) for sha256 in sizes}
        copies = {"store": stored(self.depot.store_root), "mirror": stored(self.depot.mirror_root), "bucket": there}
        return {name: hashes & everything for name, hashes in copies.items()}

    def keep_backups(self) -> int:
        """Backups begin and are let go; whatever one would restore has its bytes as long as it is kept."""
        chance, kept = random.Random(self.seed), 0
        while not self.done.is_set():
            with psycopg.connect(self.depot.project.api.owner_url) as owner:
                began = owner.execute("SELECT clock_timestamp()").fetchone()[0]
                path = backup_record(self.depot.backups, began)
                referred = {row[0] for row in owner.execute(REFERRED, [self.depot.project.id] * 2)}
            self.done.wait(chance.random() * 0.3)
            assert stored(self.depot.store_root) >= referred
            path.with_suffix("").unlink()
            path.unlink()
            kept += 1
            self.done.wait(chance.random() * 0.3)
        return kept


@pytest.mark.parametrize("seed", range(SEEDS))
def test_racing_with_the_collector_never_loses_content(depot, rclone_s3, monkeypatch, seed):
    for name, value in rclone_s3.environment.items():
        monkeypatch.setenv(name, value)
    race = Race(depot, open_bucket(rclone_s3.bucket(f"race-{secrets.token_hex(4)}") + "/depot"), seed)
    with ThreadPoolExecutor(7) as pool:
        collecting, backing_up = pool.submit(race.collect), pool.submit(race.keep_backups)
        copying = pool.submit(race.copy)
        using = [pool.submit(race.use, worker) for worker in range(4)]
        try:
            referred = {sha256 for each in using for sha256 in each.result()}
        finally:
            race.done.set()
        assert collecting.result()
        assert backing_up.result()
        assert copying.result()
    assert referred
    for _ in range(2):
        depot.collect(removers=race.removers)
    assert {name: hashes <= referred for name, hashes in race.left().items()} == dict.fromkeys(race.left(), True)
    depot.mirror()
    Push(Layout(depot.store_root), race.bucket).reconcile()
    assert race.left() == dict.fromkeys(race.left(), referred)
    assert {sha256: depot.get(sha256) for sha256 in referred} == dict.fromkeys(referred, 200)
