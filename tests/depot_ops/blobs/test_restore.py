"""The way back from the mirror: what is lost comes again, what is damaged is replaced, what nobody has is named."""

import random

import pytest

from depot_ops.blobs.inventory import CopyUnreachable
from depot_ops.blobs.restore import BlobRestoreError, Wanted, all_of_copy, directory_source, restore_blobs

CONTENTS = [b"content %d" % n for n in range(20)]


def wanted(blobs, is_referenced=True):
    return iter([Wanted(blob.sha256, blob, is_referenced) for blob in blobs])


def test_an_empty_store_is_filled_and_a_second_run_has_nothing_to_copy(copies):
    blobs = copies.put(*CONTENTS)
    copies.mirror()
    for blob in blobs:
        copies.in_store(blob).unlink()
    source = directory_source(copies.mirror_root)
    first = restore_blobs(all_of_copy(copies.mirror_root), [source], copies.root, workers=2)
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
        for victim in sorted(victims):
            copies.damage(root, chance, blobs[victim], blobs[(victim + 1) % 20])
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


def test_a_disk_that_fails_stops_the_restore_and_leaves_no_half_objects(copies):
    blobs = copies.put(*CONTENTS)
    copies.mirror()
    for blob in blobs:
        copies.in_store(blob).unlink()
    good = directory_source(copies.mirror_root)

    def failing(sha256, temporary):
        if sha256 == blobs[7].sha256:
            raise OSError("input/output error")
        return good(sha256, temporary)

    with pytest.raises(BlobRestoreError, match="input/output error"):
        restore_blobs(wanted(blobs), [failing], copies.root, workers=2)
    assert restore_blobs(wanted(blobs), [good], copies.root, workers=2).objects == 20
