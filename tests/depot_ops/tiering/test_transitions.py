"""Moves within the bucket, down and up, against a server with storage classes."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import httpx
import pytest
from typer.testing import CliRunner

from depot_ops.cli import app
from depot_ops.evidence import Status
from depot_ops.settings import ObjectStorageSettings, load
from depot_ops.tiering.bucket import ObjectGone, TieredBucket
from depot_ops.tiering.classes import StorageClass
from depot_ops.tiering.plan import Placement
from depot_ops.tiering.run import check_tiered
from depot_ops.tiering.transitions import MOST_FAILURES, apply_moves

DAY = timedelta(days=1)
MIB = 1 << 20


def apply(*more: str) -> dict:
    done = CliRunner().invoke(app, ["tier", "apply", "--json", *more])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@contextmanager
def slow_restores(moto_s3, seconds: int) -> Iterator[None]:
    """As in S3, where a restore takes hours; moto is done at once otherwise."""
    where, model = f"{moto_s3.url}/moto-api/state-manager", {"model_name": "s3::keyrestore"}
    slow = model | {"transition": {"progression": "time", "seconds": seconds}}
    assert httpx.post(f"{where}/set-transition", json=slow).is_success
    try:
        yield
    finally:
        assert httpx.post(f"{where}/unset-transition", json=model).is_success


def listed(shelf, sha256: str):
    return next(one for one in shelf.bucket.list_objects() if one.sha256 == sha256)


def recorded(history, shelf, name: str, days_old: int, storage_class: str = "STANDARD") -> str:
    sha256 = shelf.put(name, storage_class)
    history.blob(sha256, shelf.head(sha256)["ContentLength"])
    history.version(sha256, path=f"Content/{name}.uasset", days_old=days_old)
    return sha256


def test_down_and_up_again(configured, history, tmp_path):
    sha256 = recorded(history, configured, "hero", days_old=40)
    before = configured.head(sha256)
    result = apply()
    assert (result["moved_objects"], result["moved_up_objects"]) == (1, 0)
    after = configured.head(sha256)
    assert after["StorageClass"] == "STANDARD_IA"
    assert (after["Metadata"], after["ETag"]) == (before["Metadata"], before["ETag"])
    assert apply()["moved_objects"] == 0
    history.version(sha256, path="Content/again.uasset", days_old=1)
    assert apply()["moved_up_objects"] == 1
    assert configured.storage_class(sha256) == "STANDARD"
    finding = check_tiered(tmp_path / "store", DAY)
    assert (finding.status, finding.figures["waiting_objects"]) == (Status.HEALTHY, 0)


@pytest.mark.parametrize("archive", ["GLACIER", "DEEP_ARCHIVE"])
def test_from_an_archive_by_way_of_a_restore(configured, history, moto_s3, archive):
    sha256 = recorded(history, configured, "hero", 3, archive)
    with slow_restores(moto_s3, seconds=0):
        first = apply()
        assert (first["restore_requested_objects"], first["moved_objects"]) == (1, 0)
        assert 'ongoing-request="true"' in configured.head(sha256)["Restore"]
    with slow_restores(moto_s3, seconds=1000):
        second = apply()
        assert (second["restoring_objects"], second["restore_requested_objects"]) == (1, 0)
    assert configured.storage_class(sha256) == archive
    assert apply()["moved_up_objects"] == 1
    assert configured.storage_class(sha256) == "STANDARD"


def test_what_is_archived_is_not_restored_to_be_colder(configured, history):
    history.branch("Done", status="archived")
    sha256 = configured.put("hero", "GLACIER")
    history.blob(sha256, 200 << 10)
    history.version(sha256, project="Done")
    assert apply()["restore_requested_objects"] == 0
    assert configured.storage_class(sha256) == "GLACIER"


def test_in_parts(shelf, bucket):
    """What is too large for one request, with a limit that a test can afford."""
    sha256 = shelf.put("large", size_bytes=11 * MIB)
    before = shelf.client.get_object(Bucket=shelf.name, Key=shelf.key(sha256))["Body"].read()
    small_requests = TieredBucket(shelf.name, "depot", load(ObjectStorageSettings), copy_bytes=5 * MIB)
    small_requests.move(listed(shelf, sha256), StorageClass.GLACIER_IR)
    after = shelf.client.get_object(Bucket=shelf.name, Key=shelf.key(sha256))
    assert (after["StorageClass"], after["Body"].read() == before) == ("GLACIER_IR", True)
    assert shelf.bucket.sha256(f"objects/{sha256[:2]}/{sha256}.bin.gz") == after["Metadata"]["sha256"]
    assert "-3" in after["ETag"]


def test_what_went_since_it_was_listed_stays_gone(shelf):
    sha256 = shelf.put("going")
    found = listed(shelf, sha256)
    shelf.client.delete_object(Bucket=shelf.name, Key=shelf.key(sha256))
    with pytest.raises(ObjectGone):
        shelf.bucket.move(found, StorageClass.GLACIER)
    assert apply_moves(shelf.bucket, [Placement(found, StorageClass.GLACIER)], 7).gone_objects == 1
    assert list(shelf.bucket.list_objects()) == []


def test_when_the_bucket_is_away_it_stops(shelf):
    found = listed(shelf, shelf.put("one"))
    shelf.client.delete_object(Bucket=shelf.name, Key=shelf.key(found.sha256))
    shelf.client.delete_bucket(Bucket=shelf.name)
    tried = []

    def placements():
        for n in range(1000):
            tried.append(n)
            yield Placement(found, StorageClass.GLACIER)

    result = apply_moves(shelf.bucket, placements(), 7, workers=2)
    assert (len(result.failed), result.stopped) == (MOST_FAILURES, True)
    assert len(tried) < 2 * MOST_FAILURES
    assert found.sha256 in result.failed[0]


def test_killed_it_goes_on(configured, history):
    """Nothing is kept of what was done: a second run does the rest."""
    objects = [recorded(history, configured, f"object {n}", days_old=40) for n in range(4)]
    configured.bucket.move(listed(configured, objects[2]), StorageClass.STANDARD_IA)
    assert apply()["moved_objects"] == 3
    assert {configured.storage_class(sha256) for sha256 in objects} == {"STANDARD_IA"}


def test_without_evidence_nothing_is_known(tmp_path):
    assert check_tiered(tmp_path, DAY).status is Status.UNKNOWN
    (tmp_path / "evidence").mkdir()
    (tmp_path / "evidence" / "tiering-1.json").write_text("{")
    assert check_tiered(tmp_path, DAY).status is Status.UNKNOWN


def test_in_lifecycle_mode_the_bucket_moves(configured, history, policy_path, monkeypatch):
    monkeypatch.setenv("TIER_MODE", "lifecycle")
    refused = CliRunner().invoke(app, ["tier", "apply"])
    assert refused.exit_code == 3
    assert "rule 'archived': when.branch_state: S3 cannot ask" in refused.output
    policy_path.write_text("{version: 1, rules: [{name: old, when: {older_than_days: 90}, storage_class: GLACIER}]}")
    told = CliRunner().invoke(app, ["tier", "lifecycle"])
    assert "GLACIER from day 90" in told.output
    assert "would be written" in told.output
    assert configured.bucket.lifecycle_rules() == []
    assert apply()["rules_changed"] is True
    assert len(configured.bucket.lifecycle_rules()) == 1
    monkeypatch.setenv("TIER_MODE", "explicit")
    apply()
    assert configured.bucket.lifecycle_rules() == []
