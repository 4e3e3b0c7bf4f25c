"""The way back from the mirror: what is lost comes again, what is damaged is replaced, what nobody has is named."""

import random
import shutil

import pytest

from depot_api.blobstore.bucket import BucketCopy
from depot_api.blobstore.layout import Layout
from depot_ops.blobs.inventory import CopyUnreachable
from depot_ops.blobs.push import Push, object_key
from depot_ops.blobs.remote import Copies
from depot_ops.blobs.restore import BlobRestoreError, Wanted, all_of_copies, directory_source, restore_blobs
from depot_ops.places import DirectoryPlace
from depot_ops.settings import ObjectStorageSettings

CONTENTS = [b"content %d" % n for n in range(20)]


def wanted(blobs, is_referenced=True):
    return iter([Wanted(blob.sha256, blob, is_referenced) for blob in blobs])


def test_an_empty_store_is_filled_and_a_second_run_has_nothing_to_copy(copies):
    blobs = copies.put(*CONTENTS)
    copies.mirror()
    for blob in blobs:
        copies.in_store(blob).unlink()
    source = directory_source(copies.mirror_root)
    first = restore_blobs(all_of_copies(copies.mirror_root, None), [source], copies.root, workers=2)
    assert (first.objects, first.copied_objects, first.lost_objects) == (20, 20, 0)
    second = restore_blobs(wanted(blobs), [source], copies.root, workers=2)
    assert (second.objects, second.copied_objects) == (20, 0)
    for blob in blobs:
        copies.store.verify(blob)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happened_to_either_copy_the_store_is_right_or_the_loss_is_named(copies, seed):
    chance, blobs = random.Random(seed), copies.put(*CONTENTS)
    copies.mirror()
    hurt = {root: set(chance.sample(range(20), 6)) for root in (copies.root, copies.mirror_root)}
    for root, victims in hurt.items():
        whole = next(blob for number, blob in enumerate(blobs) if number not in victims)
        for victim in sorted(victims):
            copies.damage(root, chance, blobs[victim], whole)
    result = restore_blobs(wanted(blobs), [directory_source(copies.mirror_root)], copies.root, workers=2)
    lost = {blob.sha256 for blob in result.lost}
    assert lost == {blobs[n].sha256 for n in hurt[copies.root] & hurt[copies.mirror_root]}
    for blob in blobs:
        if blob.sha256 not in lost:
            copies.store.verify(blob)


def test_content_that_nothing_refers_to_is_no_loss(copies):
    blobs = copies.put(*CONTENTS)
    copies.mirror()
    for path in (copies.in_store(blobs[0]), copies.in_mirror(blobs[0])):
        path.unlink()
    source = directory_source(copies.mirror_root)
    result = restore_blobs(wanted(blobs, is_referenced=False), [source], copies.root, workers=2)
    assert (result.lost_objects, result.unreferenced_lost_objects, result.finding().status) == (0, 1, "healthy")


def test_a_second_source_has_what_the_first_has_not(copies, tmp_path):
    blobs = copies.put(*CONTENTS)
    copies.mirror()
    copies.in_mirror(blobs[3]).unlink()
    sources = [directory_source(copies.mirror_root), directory_source(copies.root)]
    result = restore_blobs(wanted(blobs), sources, tmp_path / "new", workers=2)
    assert (result.objects, result.copied_objects) == (20, 20)


def test_a_mirror_that_is_not_mounted_is_said_before_anything_is_done(tmp_path):
    with pytest.raises(CopyUnreachable, match="Mount the disk"):
        directory_source(tmp_path / "mirror")


@pytest.mark.parametrize("sources", [1, 2])
def test_what_one_source_does_not_read_the_next_is_asked_for(copies, tmp_path, unreadable, sources):
    blobs = copies.put(*CONTENTS)
    copies.mirror()
    shutil.copytree(copies.mirror_root, tmp_path / "other")
    unreadable(copies.in_mirror(blobs[7]))
    found = [directory_source(root) for root in (copies.mirror_root, tmp_path / "other")[:sources]]
    result = restore_blobs(wanted(blobs), found, tmp_path / "new", workers=2)
    lost = [] if sources == 2 else [blobs[7].sha256]
    assert ([one.sha256 for one in result.lost], result.objects) == (lost, 20 - len(lost))
    assert all("cannot be read" in one.seen for one in result.lost)


def test_what_the_stores_disk_does_not_read_is_replaced(copies, unreadable):
    blobs = copies.put(*CONTENTS)
    copies.mirror()
    unreadable(copies.in_store(blobs[7]))
    result = restore_blobs(wanted(blobs), [directory_source(copies.mirror_root)], copies.root, workers=2)
    assert (result.objects, result.copied_objects, result.lost_objects) == (20, 1, 0)


def test_what_is_removed_for_good_does_not_come_back_by_a_restore_under_way(copies):
    kept, gone = copies.put(b"kept", b"gone")
    copies.mirror()
    copies.in_store(kept).unlink()
    copies.in_store(gone).unlink()
    good, recorded = directory_source(copies.mirror_root), {kept.sha256, gone.sha256}

    def removed_meanwhile(sha256, temporary):
        staged = good(sha256, temporary)
        if sha256 == gone.sha256:
            recorded.remove(sha256)
            copies.store.remove([sha256])
        return staged

    result = restore_blobs(
        wanted([kept, gone]), [removed_meanwhile], copies.root, workers=1, still_wanted=recorded.intersection
    )
    assert (result.objects, result.copied_objects, result.lost_objects) == (1, 1, 0)
    assert list(copies.objects()) == [copies.in_store(kept).name]
    assert not [path for path in (copies.root / "tmp").rglob("*") if path.is_file() and path.name != "lock"]


def test_a_target_that_fails_stops_the_restore_and_leaves_no_half_objects(copies, tmp_path, monkeypatch):
    blobs = copies.put(*CONTENTS)
    copies.mirror()
    good, target = directory_source(copies.mirror_root), tmp_path / "new"

    def failing(sha256, temporary):
        return good(sha256, temporary / "no directory" if sha256 == blobs[7].sha256 else temporary)

    with pytest.raises(BlobRestoreError, match="cannot be filled"):
        restore_blobs(wanted(blobs), [failing], target, workers=2)
    assert copies.objects(target) == {}
    assert restore_blobs(wanted(blobs), [good], target, workers=2).objects == 20


def test_without_a_catalogue_all_comes_back_that_either_copy_has(copies, tmp_path, monkeypatch):
    blobs = copies.put(*CONTENTS)
    (tmp_path / "bucket").mkdir()
    bucket = DirectoryPlace(str(tmp_path / "bucket"))
    for project in ("both", "bucket"):
        (copies.root / "refs" / project).mkdir(parents=True)
        (copies.root / "refs" / project / "project.json").write_text("{}")
    Push(Layout(copies.root), bucket).reconcile()
    foreign = tmp_path / "bucket" / "objects" / "00" / "README"
    foreign.parent.mkdir(exist_ok=True)
    foreign.touch()
    copies.mirror()
    copies.in_mirror(blobs[3]).unlink()
    (tmp_path / "bucket" / object_key(blobs[4].sha256)).unlink()
    shutil.rmtree(copies.mirror_root / "refs" / "bucket")
    monkeypatch.setattr("depot_ops.blobs.remote.push_target", lambda: bucket)
    left = Copies(copies.mirror_root, BucketCopy("s3://never/asked", ObjectStorageSettings()))
    sources = [directory_source(root) for root in (copies.mirror_root, tmp_path / "bucket")]
    result = restore_blobs(left.everything(), sources, tmp_path / "new", workers=2)
    left.restore_documents(tmp_path / "new", 2, result, from_both=True)
    assert (result.objects, result.lost_objects, result.documents) == (20, 0, 2)
    assert copies.objects(tmp_path / "new") == copies.objects()
    assert (tmp_path / "new" / "refs" / "bucket" / "project.json").exists()
