"""The store in a bucket: all of it, only what is right, and again from there when disks are lost."""

import hashlib
import threading

import pytest
from typer.testing import CliRunner

from depot_api.blobstore.layout import Layout
from depot_api.blobstore.store import BlobStore
from depot_ops.blob_commands import app
from depot_ops.blobs.push import Push, PushError, check_push_complete, check_push_lag, object_key
from depot_ops.blobs.restore import RestoredBlobs, all_of_copies, fetch_documents, restore_blobs
from depot_ops.evidence import Status
from depot_ops.places import DirectoryPlace, PlaceDamaged, PlaceError

PROJECT = "018f0000-0000-7000-8000-000000000001"
VERSION = f"20260101T000000.000000000Z_{PROJECT}.json"


def names_and_sizes(place) -> dict[str, int]:
    return {one.key: one.size_bytes for one in place.list("")}


def write_ref(copies, name: str, content: str) -> None:
    (copies.root / "refs" / PROJECT).mkdir(parents=True, exist_ok=True)
    (copies.root / "refs" / PROJECT / name).write_text(content)


def test_everything_is_there_under_its_name_and_a_second_push_sends_nothing(copies, bucket):
    blobs = copies.put_some(1, 30)
    write_ref(copies, VERSION, "{}")
    write_ref(copies, "project.json", '{"name": "a"}')
    first = Push(Layout(copies.root), bucket).reconcile()
    assert (first.objects_seen, first.objects_sent, first.refs_sent, first.is_complete) == (30, 30, 2, True)
    documents = {f"refs/{PROJECT}/{VERSION}": 2, f"refs/{PROJECT}/project.json": 13}
    assert names_and_sizes(bucket) == {object_key(blob.sha256): blob.stored_bytes for blob in blobs} | documents
    assert (
        bucket.sha256(object_key(blobs[0].sha256)) == hashlib.sha256(copies.in_store(blobs[0]).read_bytes()).hexdigest()
    )
    write_ref(copies, "project.json", '{"name": "b"}')
    again = Push(Layout(copies.root), bucket).reconcile()
    assert (again.objects_sent, again.refs_sent) == (0, 1)


def test_new_objects_follow_without_a_listing(copies, bucket, monkeypatch):
    copies.put_some(1, 5)
    push = Push(Layout(copies.root), bucket)
    assert push.follow_once().objects_sent == 5
    monkeypatch.setattr(bucket, "list", None)
    new = copies.put_some(2, 3)
    write_ref(copies, "project.json", "{}")
    followed = push.follow_once()
    assert (followed.objects_sent, followed.refs_sent) == (3, 1)
    assert all(bucket.size_bytes(object_key(blob.sha256)) == blob.stored_bytes for blob in new)
    assert push.follow_once().has_copied is False


def test_damage_does_not_travel(copies, bucket):
    good, bad = copies.put_some(1, 2)
    copies.in_store(bad).write_bytes(copies.in_store(good).read_bytes())
    pushed = Push(Layout(copies.root), bucket).reconcile()
    assert [damage.sha256 for damage in pushed.damaged] == [bad.sha256]
    assert list(names_and_sizes(bucket)) == [object_key(good.sha256)]
    result = CliRunner().invoke(app, ["push"])
    assert (result.exit_code, bad.sha256 in result.output) == (1, True)


def test_a_damaged_document_replaces_no_good_one_on_either_way(copies, tmp_path):
    (tmp_path / "place").mkdir()
    place = DirectoryPlace(str(tmp_path / "place"))
    push = Push(Layout(copies.root), place)
    write_ref(copies, VERSION, "{}")
    write_ref(copies, "project.json", '{"name": "a"}')
    assert push.reconcile().is_complete
    write_ref(copies, "project.json", '{"na')
    for look in (push.reconcile, push.follow_once):
        assert look().unreadable_refs == [f"{PROJECT}/project.json"]
    there = tmp_path / "place" / "refs" / PROJECT
    assert (there / "project.json").read_text() == '{"name": "a"}'
    (there / "project.json").write_text('{"na')
    write_ref(copies, "project.json", '{"name": "b"}')
    result = RestoredBlobs(target=str(copies.root))
    fetch_documents(place, copies.root, 2, result)
    assert result.unreadable_documents == [f"{PROJECT}/project.json"]
    assert (copies.root / "refs" / PROJECT / "project.json").read_text() == '{"name": "b"}'
    assert len(list((copies.root / "refs" / PROJECT).iterdir())) == 2


def test_a_document_that_is_not_what_was_sent_stops_no_restore(copies, tmp_path, monkeypatch):
    (tmp_path / "place").mkdir()
    place = DirectoryPlace(str(tmp_path / "place"))
    write_ref(copies, VERSION, "{}")
    write_ref(copies, "project.json", "{}")
    Push(Layout(copies.root), place).reconcile()
    get = place.get

    def damaged(key, path):
        if key.endswith(VERSION):
            raise PlaceDamaged("it has another SHA-256")
        return get(key, path)

    monkeypatch.setattr(place, "get", damaged)
    result = RestoredBlobs(target=str(tmp_path / "new"))
    fetch_documents(place, tmp_path / "new", 2, result)
    assert (result.documents, result.unreadable_documents) == (1, [f"{PROJECT}/{VERSION}"])
    assert [path.name for path in (tmp_path / "new" / "refs" / PROJECT).iterdir()] == ["project.json"]


def test_what_the_disk_does_not_read_is_told_and_everything_else_is_sent(copies, tmp_path, unreadable):
    (tmp_path / "place").mkdir()
    push = Push(Layout(copies.root), DirectoryPlace(str(tmp_path / "place")))
    assert push.follow_once().objects_sent == 0
    blobs = copies.put_some(1, 6)
    write_ref(copies, VERSION, "{}")
    write_ref(copies, "project.json", "{}")
    unreadable(copies.in_store(blobs[2]))
    unreadable(copies.root / "refs" / PROJECT / "project.json")
    for look, sent in ((push.follow_once, (5, 1)), (push.reconcile, (0, 0))):
        result = look()
        assert (result.objects_sent, result.refs_sent) == sent
        assert [damage.sha256 for damage in result.damaged] == [blobs[2].sha256]
        assert (result.unreadable_refs, result.is_complete) == ([f"{PROJECT}/project.json"], False)


def test_what_follows_never_overwrites_what_came_meanwhile(copies, tmp_path, monkeypatch):
    (tmp_path / "place").mkdir()
    place = DirectoryPlace(str(tmp_path / "place"))
    push = Push(Layout(copies.root), place)
    push.follow_once()
    (blob,) = copies.put_some(1, 1)
    path = tmp_path / "place" / object_key(blob.sha256)

    def comes_meanwhile(key):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"of another pass")

    with monkeypatch.context() as patched, pytest.raises(PushError, match="other content"):
        patched.setattr(place, "size_bytes", comes_meanwhile)
        push.follow_once()
    assert path.read_bytes() == b"of another pass"
    assert push.reconcile().objects_sent == 1, "a listing shows that it is not whole"


def test_an_empty_store_is_filled_from_the_bucket_alone(copies, bucket, fetched, tmp_path):
    blobs = copies.put_some(1, 10)
    write_ref(copies, VERSION, "{}")
    Push(Layout(copies.root), bucket).reconcile()
    target = tmp_path / "new"
    result = restore_blobs(all_of_copies(None, bucket), [fetched.stage], target, workers=2)
    fetch_documents(bucket, target, 2, result)
    assert (result.objects, result.lost_objects, result.documents) == (10, 0, 1)
    store = BlobStore(target)
    for blob in blobs:
        store.verify(blob)
    assert (target / "refs" / PROJECT / VERSION).read_text() == "{}"
    again = RestoredBlobs(target=str(target))
    fetch_documents(bucket, target, 2, again)
    assert again.documents == 0


def test_what_is_removed_goes_from_the_bucket_too(copies, bucket, fetched):
    gone, kept = copies.put_some(1, 2)
    copies.mirror()
    Push(Layout(copies.root), bucket).reconcile()
    BlobStore(copies.root, copies.mirror_root, fetched).remove([gone.sha256, hashlib.sha256(b"never").hexdigest()])
    assert list(names_and_sizes(bucket)) == [object_key(kept.sha256)]
    assert list(copies.mirrored()) == [copies.in_mirror(kept).name]


def test_checks_tell_what_waits_and_what_is_missing(copies, bucket, depot_database):
    blobs = copies.put_some(1, 3)
    copies.record(depot_database.owner_url, blobs)
    checks = (
        lambda: check_push_lag(copies.root, lambda: bucket, 0.0),
        lambda: check_push_complete(lambda: bucket, depot_database.dump_url, 60),
    )
    assert [check().status for check in checks] == [Status.UNHEALTHY, Status.UNHEALTHY]
    Push(Layout(copies.root), bucket).reconcile()
    assert [check().status for check in checks] == [Status.HEALTHY, Status.HEALTHY]
    write_ref(copies, VERSION, "{}")
    write_ref(copies, "project.json", '{"name": "a"}')
    lag = checks[0]()
    assert (lag.status, lag.figures["documents"]) == (Status.UNHEALTHY, 2)
    Push(Layout(copies.root), bucket).reconcile()
    assert checks[0]().status is Status.HEALTHY
    write_ref(copies, "project.json", '{"name": "b"}')
    lag = checks[0]()
    assert (lag.status, lag.figures["documents"]) == (Status.UNHEALTHY, 1), "as large as before, and another"

    def unreachable():
        raise PlaceError("no answer")

    assert check_push_lag(copies.root, unreachable, 60).status is Status.UNKNOWN
    assert check_push_complete(unreachable, depot_database.dump_url, 60).status is Status.UNKNOWN


class FailingPlace(DirectoryPlace):
    """Fails one call, in one of the ways in which storage does."""

    def __init__(self, root: str, fails_at: int, how: str) -> None:
        super().__init__(root)
        self._calls, self._lock, self._fails_at, self._how = 0, threading.Lock(), fails_at, how

    def _fails(self) -> bool:
        with self._lock:
            self._calls += 1
            return self._calls == self._fails_at

    def replace(self, key, path, sha256):
        write = super().replace
        if not self._fails():
            write(key, path, sha256)
            return
        if self._how == "done, and told late":
            write(key, path, sha256)
        if self._how == "partial write":
            partial = path.with_name("partial")
            partial.write_bytes(path.read_bytes()[:-3])
            write(key, partial, hashlib.sha256(partial.read_bytes()).hexdigest())
            partial.unlink()
        raise PlaceError(f"{self._how}: told by the test")

    def list(self, prefix):
        if self._fails():
            raise PlaceError(f"{self._how}: told by the test")
        yield from super().list(prefix)


@pytest.mark.parametrize("how", ["error", "partial write", "done, and told late"])
def test_whatever_call_fails_nothing_is_lost_and_a_second_run_completes(copies, tmp_path, how):
    blobs = copies.put_some(1, 4)
    write_ref(copies, "project.json", "{}")
    before = copies.objects()
    calls = 1 + 4 + 1 + 1  # a listing and a write of each object, and the same of documents
    for fails_at in range(1, calls + 2):
        root = tmp_path / f"place-{fails_at}"
        root.mkdir()
        try:
            Push(Layout(copies.root), FailingPlace(str(root), fails_at, how)).reconcile()
            failed = False
        except PushError as error:
            assert "told by the test" in str(error)
            failed = True
        place = DirectoryPlace(str(root))
        assert Push(Layout(copies.root), place).reconcile().is_complete
        assert {one.key for one in place.list("objects/")} == {object_key(blob.sha256) for blob in blobs}
        for blob in blobs:
            assert (root / object_key(blob.sha256)).read_bytes() == copies.in_store(blob).read_bytes()
        assert failed is (fails_at <= calls)
    assert copies.objects() == before
