"""Each call to a disk or a bucket fails in turn, in every way in which storage does; nothing is lost by that.

In CI every few calls; STORAGE_FAULTS=all, as `make torture` sets it, tries each.
"""

import errno
import io
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pytest

from depot_api.blobstore.layout import Layout
from depot_ops.blobs.collect import CollectError, CollectPolicy, all_copies, collect
from depot_ops.blobs.mirror import MirrorError, MirrorOptions, open_mirror
from depot_ops.blobs.push import Push
from depot_ops.blobs.records import open_records
from depot_ops.blobs.restore import BlobRestoreError, Wanted, directory_source, restore_blobs
from depot_ops.blobs.scrub import ScrubOptions, open_scrubber
from depot_ops.places import PlaceError
from tests.depot_ops.tiering.conftest import History

EACH = os.environ.get("STORAGE_FAULTS") == "all"
HOW = ["error", "partial write", "wrong checksum", "done, and told late"]
EVERY = {how: 1 if EACH or how in ("partial write", "wrong checksum") else 5 for how in HOW}
FAULT = OSError(errno.EIO, "told by the test")
T = TypeVar("T")
DAY = timedelta(days=1)


class Faults:
    """Calls to the disk, counted; the one that is asked for fails. What cannot fail in that way does not count."""

    def __init__(self) -> None:
        self._calls, self._fails_at, self._how, self.happened = 0, 0, "", False

    @contextmanager
    def at(self, number: int, how: str) -> Iterator[None]:
        self._calls, self._fails_at, self._how, self.happened = 0, number, how, False
        yield
        self._fails_at = 0

    def read(self, do: Callable[[], bytes]) -> bytes:
        if self._how != "wrong checksum":
            return self.call(do)
        content = do()
        return bytes([content[0] ^ 1]) + content[1:] if content and self._is_it() else content

    def write(self, do: Callable[[bytes], int], content: bytes) -> int:
        if self._how == "partial write" and self._is_it():
            do(content[: len(content) // 2])
            raise FAULT
        return self.call(lambda: do(content))

    def call(self, do: Callable[[], T]) -> T:
        if self._how in ("partial write", "wrong checksum") or not self._is_it():
            return do()
        if self._how == "done, and told late":
            do()
        raise FAULT

    def _is_it(self) -> bool:
        self._calls += 1
        self.happened = self.happened or self._calls == self._fails_at
        return self._calls == self._fails_at


@pytest.fixture
def faults(monkeypatch) -> Faults:
    made = Faults()

    class File(io.FileIO):
        def read(self, *size):
            return made.read(lambda: io.FileIO.read(self, *size))

        def write(self, content):
            return made.write(lambda some: io.FileIO.write(self, some), content)

    def failing(function):
        return lambda *a, **k: made.call(lambda: function(*a, **k))

    def opened(path, mode="r", buffering=-1, *more, _open=Path.open, **named):
        return File(path, mode.replace("b", "")) if buffering == 0 else _open(path, mode, buffering, *more, **named)

    monkeypatch.setattr(Path, "open", opened)
    for name in ("replace", "unlink"):
        monkeypatch.setattr(Path, name, failing(getattr(Path, name)))
    monkeypatch.setattr(os, "fsync", failing(os.fsync))
    return made


def each_call(faults: Faults, how: str, act: Callable[[], object], errors: tuple[type[Exception], ...]):
    """Yields once for each call that failed: before, to prepare; and after it, to look at what is left."""
    for number in itertools.count(1, EVERY[how]):
        yield number, "before"
        with faults.at(number, how):
            try:
                act()
            except errors as error:
                assert "told by the test" in str(error)
        if not faults.happened:
            return
        yield number, "after"


@pytest.mark.parametrize("how", HOW)
def test_whatever_call_fails_the_mirror_is_right_and_a_second_pass_completes_it(copies, tmp_path, faults, how):
    copies.put_some(1, 3)
    (copies.root / "refs" / "p").mkdir(parents=True)
    (copies.root / "refs" / "p" / "project.json").write_text("{}")
    truth, target = copies.objects(), tmp_path

    def mirror():
        with open_mirror(copies.root, target, MirrorOptions(workers=1)) as opened:
            return opened.reconcile()

    failed = 0
    for number, moment in each_call(faults, how, mirror, (MirrorError, OSError)):
        target = tmp_path / f"mirror-{number}"
        (copies.root / "mirrored-to").unlink(missing_ok=True)
        if moment == "after":
            assert copies.objects(target).items() <= truth.items()
            assert mirror().is_complete
            assert copies.objects(target) == truth
            assert (target / "refs" / "p" / "project.json").read_text() == "{}"
            failed += 1
    assert failed >= 2
    assert copies.objects() == truth


@pytest.mark.parametrize("how", HOW)
def test_whatever_call_fails_a_restore_is_right_and_a_second_one_completes_it(copies, tmp_path, faults, how):
    blobs = copies.put_some(1, 3)
    copies.mirror()
    truth, target = copies.objects(), tmp_path

    def restore():
        wanted = iter([Wanted(blob.sha256, blob, True) for blob in blobs])
        return restore_blobs(wanted, [directory_source(copies.mirror_root)], target, workers=1)

    failed = 0
    for number, moment in each_call(faults, how, restore, (BlobRestoreError, OSError)):
        target = tmp_path / f"store-{number}"
        if moment == "after":
            assert copies.objects(target).items() <= truth.items()
            assert restore().lost_objects == 0
            assert copies.objects(target) == truth
            failed += 1
    assert failed >= 2
    assert copies.mirrored() == truth


@pytest.mark.parametrize("how", HOW)
def test_whatever_call_fails_a_scrub_loses_nothing_and_a_second_one_repairs(copies, depot_database, faults, how):
    blobs = copies.put_some(1, 4)
    copies.record(depot_database.owner_url, blobs)
    copies.mirror()
    truth = copies.objects()

    def scrub():
        options = ScrubOptions(DAY, repair=True, workers=1)
        with (
            open_records(depot_database.dump_url) as records,
            open_scrubber(copies.root, copies.mirror_root, records, options) as scrubber,
        ):
            return scrubber.scrub({blob.sha256[:2] for blob in blobs})

    failed = 0
    for _, moment in each_call(faults, how, scrub, (OSError,)):
        if moment == "before":
            copies.in_store(blobs[0]).unlink()
            copies.in_mirror(blobs[1]).write_bytes(b"rotten")
            continue
        left = [copies.objects(), copies.mirrored()]
        assert all(any(copy.get(name) == content for copy in left) for name, content in truth.items())
        assert scrub().unrepaired == []
        assert (copies.objects(), copies.mirrored()) == (truth, truth)
        failed += 1
    assert failed >= 2


@pytest.mark.parametrize("how", ["error", "done, and told late"])
def test_whatever_call_fails_a_collection_takes_only_what_it_may_and_a_second_one_all(
    copies, depot_database, estate, faults, how
):
    estate.dump(datetime.now(UTC) + DAY)
    (kept,) = copies.put(b"referred to")
    copies.record(depot_database.owner_url, [kept])
    History(depot_database.superuser_url).version(kept.sha256)
    policy = CollectPolicy(estate.backup_dir, timedelta(0), delete=True, clock_error=timedelta(0))

    def run():
        remove = all_copies(copies.root, copies.mirror_root)
        return collect(depot_database.owner_url, copies.root, [remove], policy)

    failed = 0
    for number, moment in each_call(faults, how, run, (CollectError, OSError)):
        if moment == "before":
            copies.record(depot_database.owner_url, copies.put_some(number, 2))
            copies.mirror()
            run()  # marks them
            continue
        run()
        run()  # what is left of a removal is found, marked and removed like an upload that never ended
        only = {copies.in_store(kept).name}
        assert (set(copies.objects()), set(copies.mirrored())) == (only, only)
        failed += 1
    assert failed >= 2
    copies.store.verify(kept)


def test_whatever_call_to_the_bucket_fails_a_scrub_loses_nothing_and_a_second_one_repairs(
    copies, bucket, raw_bucket, fetched, depot_database, monkeypatch
):
    blobs = copies.put_some(1, 3)
    copies.record(depot_database.owner_url, blobs)
    copies.mirror()
    truth = copies.objects()
    Push(Layout(copies.root), bucket).reconcile()
    calls, fails_at = 0, 0

    def failing(function):
        def call(*arguments):
            nonlocal calls
            calls += 1
            if calls == fails_at:
                raise PlaceError("told by the test")
            return function(*arguments)

        return call

    for name in ("chunks", "replace", "size_bytes", "get"):
        monkeypatch.setattr(bucket, name, failing(getattr(bucket, name)))

    def scrub():
        options = ScrubOptions(DAY, repair=True, workers=1)
        with (
            open_records(depot_database.dump_url) as records,
            open_scrubber(copies.root, copies.mirror_root, records, options, fetched, lambda: bucket) as scrubber,
        ):
            return scrubber.scrub({blob.sha256[:2] for blob in blobs})

    for number in itertools.count(1, 1 if EACH else 3):
        raw_bucket.put(blobs[0].sha256, b"rotten")
        raw_bucket.put(blobs[1].sha256, None)
        calls, fails_at = 0, number
        first = scrub()
        made, calls, fails_at = calls, 0, 0
        assert (copies.objects(), copies.mirrored()) == (truth, truth)
        assert raw_bucket.objects()[copies.in_store(blobs[2]).name] == truth[copies.in_store(blobs[2]).name]
        assert scrub().status == "healthy"
        assert raw_bucket.objects() == truth
        if made < number:
            assert first.status == "healthy"
            return
