"""The mirror has what the store has, and never anything else under an object's name."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from depot_api.blobstore.copies import commit_copies, stage_copy
from depot_api.blobstore.layout import Layout
from depot_ops.blobs.inventory import CopyUnreachable
from depot_ops.blobs.mirror import MIRROR_MARK, MirrorError, MirrorOptions, check_complete, check_lag, open_mirror
from depot_ops.evidence import Status


def write_ref(root: Path, place: str, **content: object) -> Path:
    path = root / "refs" / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def test_everything_is_there_once_and_the_second_pass_copies_nothing(copies):
    copies.put(*copies.some_contents(1, 60), b"", bytes(3 << 20))
    write_ref(copies.root, "p/project.json", name="p")
    first = copies.mirror()
    assert (first.objects_copied, first.refs_copied) == (62, 1)
    assert copies.mirrored() == copies.objects()
    second = copies.mirror()
    assert (second.objects_seen, second.objects_copied, second.refs_copied) == (62, 0, 0)
    assert not any((copies.mirror_root / "tmp").iterdir())


def test_a_damaged_source_is_told_and_never_copied(copies):
    good, bad = copies.put_some(2, 2)
    path = copies.in_store(bad)
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    result = copies.mirror()
    assert [damage.sha256 for damage in result.damaged] == [bad.sha256]
    assert not result.is_complete
    assert list(copies.mirrored()) == [f"{good.sha256}.bin.gz"]


def test_what_the_disk_does_not_read_is_told_and_everything_else_is_copied(copies, unreadable):
    blobs = copies.put_some(2, 6)
    bad = write_ref(copies.root, "p/project.json", name="p")
    write_ref(copies.root, "q/project.json", name="q")
    for path in (copies.in_store(blobs[2]), bad):
        unreadable(path)
    for _ in range(2):
        result = copies.mirror()
        assert [(damage.sha256, "cannot be read" in damage.seen) for damage in result.damaged] == [
            (blobs[2].sha256, True)
        ]
        assert (result.unreadable_refs, result.is_complete) == (["p/project.json"], False)
    assert set(copies.mirrored()) == {copies.in_store(blob).name for blob in blobs if blob != blobs[2]}
    assert (copies.mirror_root / "refs" / "q" / "project.json").exists()
    assert not list((copies.mirror_root / "tmp").rglob("*.bin.gz"))


def test_a_mirror_whose_disk_fails_ends_the_pass(copies, monkeypatch):
    copies.put_some(2, 3)

    def full(*_):
        raise OSError(errno.EIO, "the target's disk")

    with monkeypatch.context() as patched, pytest.raises(MirrorError, match="the target's disk"):
        patched.setattr("depot_api.blobstore.copies.sync_all", full)
        copies.mirror()
    assert copies.mirrored() == {}
    assert copies.mirror().objects_copied == 3


def test_what_is_gone_from_the_store_stays_in_the_mirror(copies):
    (blob,) = copies.put(b"kept")
    copies.mirror()
    copies.in_store(blob).unlink()
    copies.mirror()
    assert copies.in_mirror(blob).exists()


def test_what_is_removed_for_good_does_not_come_back_by_a_copy_under_way(copies):
    (blob,) = copies.put(b"secret")
    with open_mirror(copies.root, copies.mirror_root) as mirror:
        source, target = Layout(copies.root), Layout(copies.mirror_root)
        staged = stage_copy(source, blob.sha256, mirror.staging.temporary_file())
        copies.store.remove([blob.sha256])
        assert commit_copies([staged], source, target, source) == []
    assert copies.mirrored() == {}


def test_documents_follow_when_they_change_and_damaged_ones_do_not(copies):
    path = write_ref(copies.root, "p/project.json", name="one")
    copies.mirror()
    write_ref(copies.root, "p/project.json", name="two")
    assert copies.mirror().refs_copied == 1
    mirrored = copies.mirror_root / "refs" / "p" / "project.json"
    assert json.loads(mirrored.read_text()) == {"name": "two"}
    path.write_bytes(b"\0" * 12)
    assert copies.mirror().unreadable_refs == ["p/project.json"]
    assert json.loads(mirrored.read_text()) == {"name": "two"}


def test_a_disk_that_is_not_mounted_is_no_empty_mirror(copies):
    copies.put(b"x")
    copies.mirror()
    copies.mirror_root.rename(copies.mirror_root.with_name("unmounted"))
    with pytest.raises(CopyUnreachable, match="Mount its disk"):
        copies.mirror()
    (copies.root / MIRROR_MARK).unlink()
    assert copies.mirror().objects_copied == 1
    with pytest.raises(CopyUnreachable, match="store itself"), open_mirror(copies.root, copies.root):
        pass


def test_the_rate_is_limited(copies):
    copies.put_some(3, 10)
    stored_bytes = sum(len(content) for content in copies.objects().values())
    with open_mirror(copies.root, copies.mirror_root, MirrorOptions(4, stored_bytes)) as mirror:
        result = mirror.reconcile()
    assert result.objects_copied == 10
    assert result.duration_seconds > 0.5, "all but the last object's bytes at that rate take most of a second"


def test_the_checks_tell_lag_and_what_is_missing(copies, depot_database):
    blobs = copies.put_some(4, 5)
    copies.record(depot_database.owner_url, blobs)
    assert check_lag(copies.root, copies.mirror_root, 60).status is Status.UNKNOWN
    copies.mirror()
    assert check_lag(copies.root, copies.mirror_root, 60).status is Status.HEALTHY
    assert check_complete(copies.mirror_root, depot_database.dump_url, 60).status is Status.HEALTHY
    copies.in_mirror(blobs[0]).unlink()
    os.truncate(copies.in_mirror(blobs[1]), 5)
    for blob in blobs[:2]:
        os.utime(copies.in_store(blob), (time.time() - 100, time.time() - 100))
    lag = check_lag(copies.root, copies.mirror_root, 60)
    assert (lag.status, lag.figures["objects"]) == (Status.UNHEALTHY, 2)
    assert lag.figures["oldest_unmirrored_seconds"] >= 100
    complete = check_complete(copies.mirror_root, depot_database.dump_url, 60)
    assert (complete.status, complete.figures["missing_objects"]) == (Status.UNHEALTHY, 2)
    copies.mirror()
    assert check_lag(copies.root, copies.mirror_root, 60).status is Status.HEALTHY
    document = write_ref(copies.root, "p/project.json", name="p")
    assert check_lag(copies.root, copies.mirror_root, 60).status is Status.HEALTHY
    os.utime(document, (time.time() - 100, time.time() - 100))
    lag = check_lag(copies.root, copies.mirror_root, 60)
    assert (lag.status, lag.figures["documents"]) == (Status.UNHEALTHY, 1)
    unreachable = check_complete(copies.mirror_root, "postgresql://127.0.0.1:1/none", 60)
    assert unreachable.status is Status.UNKNOWN


def depot_ops(copies, *arguments: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "ASSET_STORAGE_PATH": str(copies.root),
        "ASSET_STORAGE_REPLICA_PATH": str(copies.mirror_root),
    }
    command = [sys.executable, "-m", "depot_ops", "blobs", *arguments]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_until(condition, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_new_objects_follow_and_a_signal_ends_it(copies):
    copies.put(b"before")
    process = depot_ops(copies, "mirror", "--follow", "--interval-seconds", "0.1")
    try:
        wait_until(lambda: copies.mirrored() == copies.objects())
        for n in range(3):
            began = time.monotonic()
            copies.put(b"after %d" % n)
            write_ref(copies.root, f"p{n}/project.json", n=n)
            wait_until(lambda: copies.mirrored() == copies.objects())
            wait_until(lambda n=n: (copies.mirror_root / "refs" / f"p{n}" / "project.json").exists())
            assert time.monotonic() - began < 5
    finally:
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=20)
    assert process.returncode == 0, told


def test_killed_in_the_middle_it_leaves_no_wrong_object_and_goes_on(copies):
    copies.put(*(os.urandom(20_000) for _ in range(3000)))
    truth = copies.objects()
    for copied in (1, 700):
        process = depot_ops(copies, "mirror")
        wait_until(lambda copied=copied: copies.mirrored_count() >= copied)
        process.kill()
        process.communicate(timeout=20)
        partial = copies.mirrored()
        assert partial.items() <= truth.items()
    assert len(partial) < len(truth), "it was killed before its end"
    result = copies.mirror()
    assert result.objects_copied == len(truth) - len(partial)
    assert copies.mirrored() == truth
    assert not any((copies.mirror_root / "tmp").iterdir()), "what the killed ones staged is gone"
