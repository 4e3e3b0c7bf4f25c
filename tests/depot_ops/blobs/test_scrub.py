"""Damage anywhere is found in one full pass, and repaired from the copy that is right."""

import json
import os
import random
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from depot_api.blobstore.errors import BlobDamaged, BlobMissing
from depot_api.blobstore.layout import Layout
from depot_ops.blob_commands import app
from depot_ops.blobs.inventory import PREFIXES
from depot_ops.blobs.push import Push
from depot_ops.blobs.records import open_records
from depot_ops.blobs.scrub import ScrubOptions, check_bucket_scrubbed, check_scrubbed, open_scrubber, shard_of
from depot_ops.blobs.scrub_copies import CopyName, load_bucket_state
from depot_ops.blobs.scrub_state import STATE_NAME, ScrubState, load_state, save_state
from depot_ops.evidence import Status
from depot_ops.places import PlaceError
from tests.depot_ops.tiering.conftest import History

PERIOD = timedelta(days=30)
FIRST_SEED, SEEDS = int(os.environ.get("SEED", "0")), int(os.environ.get("SCRUB_SEEDS", "8"))


@pytest.fixture
def mirrored(copies, depot_database):
    """Twelve recorded objects in both copies, and a function that scrubs them all."""
    blobs = copies.put_some(7, 12)
    copies.record(depot_database.owner_url, blobs)
    copies.mirror()

    def scrub(repair: bool):
        options = ScrubOptions(PERIOD, repair, workers=2)
        with (
            open_records(depot_database.dump_url) as records,
            open_scrubber(copies.root, copies.mirror_root, records, options) as scrubber,
        ):
            return scrubber.scrub(PREFIXES)

    return blobs, scrub


@pytest.fixture
def tripled(copies, mirrored, bucket, fetched, depot_database):
    """The same with a bucket, and a function that scrubs all three."""
    blobs, _ = mirrored
    Push(Layout(copies.root), bucket).reconcile()

    def scrub(repair: bool, prefixes=None, **options):
        chosen = ScrubOptions(PERIOD, repair, workers=2)
        with (
            open_records(depot_database.dump_url) as records,
            open_scrubber(copies.root, copies.mirror_root, records, chosen, fetched, lambda: bucket) as scrubber,
        ):
            return scrubber.scrub(prefixes or {blob.sha256[:2] for blob in blobs}, **options)

    return blobs, scrub


def test_a_second_scrub_refuses_while_one_is_under_way(copies, mirrored, depot_database, monkeypatch):
    for name, value in {
        "ASSET_STORAGE_PATH": copies.root,
        "ASSET_STORAGE_REPLICA_PATH": copies.mirror_root,
        "DEPOT_DUMP_URL": depot_database.dump_url,
    }.items():
        monkeypatch.setenv(name, str(value))
    with (
        open_records(depot_database.dump_url) as records,
        open_scrubber(copies.root, copies.mirror_root, records, ScrubOptions()),
    ):
        refused = CliRunner().invoke(app, ["scrub", "--all"])
    assert (refused.exit_code, "under way" in refused.output) == (3, True)
    assert CliRunner().invoke(app, ["scrub", "--all"]).exit_code == 0


def test_all_damage_is_found_reads_are_never_wrong_and_repair_restores(copies, tripled, raw_bucket):
    blobs, scrub = tripled
    contents = dict(zip((blob.sha256 for blob in blobs), copies.some_contents(7, 12), strict=True))
    truth = copies.objects()
    for seed in range(FIRST_SEED, FIRST_SEED + SEEDS):
        chance = random.Random(seed)
        victims = chance.sample(blobs, 6)
        damaged = set()
        for victim in victims:
            others = [blob for blob in blobs if blob not in victims]
            for name in chance.sample(["store", "mirror", "bucket"], chance.choice([1, 1, 2])):
                if name == "bucket":
                    raw_bucket.damage(chance, victim, chance.choice(others))
                else:
                    root = copies.root if name == "store" else copies.mirror_root
                    copies.damage(root, chance, victim, chance.choice(others))
                damaged.add((name, victim.sha256))
        for blob in blobs:
            try:
                content = b"".join(copies.store.open(blob).content_chunks())
            except (BlobDamaged, BlobMissing):
                continue
            assert content == contents[blob.sha256]
        if seed % 5 == 0:
            found = scrub(repair=False)
            assert {(d.copy_name, d.sha256) for d in found.damaged} == damaged
            assert found.unrepaired == found.damaged
        repaired = scrub(repair=True)
        assert {(d.copy_name, d.sha256) for d in repaired.damaged} == damaged, f"SEED={seed}"
        assert not repaired.unrepaired, f"SEED={seed}"
        assert copies.objects() == truth
        assert copies.mirrored() == truth
        assert raw_bucket.objects() == truth


def test_what_no_disk_of_the_store_has_whole_goes_to_the_bucket_from_the_mirror(copies, tripled, raw_bucket):
    blobs, scrub = tripled
    truth = raw_bucket.objects()
    copies.in_store(blobs[0]).unlink()
    raw_bucket.put(blobs[0].sha256, b"rotten")
    repaired = scrub(repair=True, only=CopyName.BUCKET)
    assert [(found.copy_name, found.repaired) for found in repaired.damaged] == [("bucket", True)]
    assert raw_bucket.objects() == truth
    assert not copies.in_store(blobs[0]).exists(), "only the bucket was looked at"


def test_what_is_damaged_in_the_bucket_stays_there_until_something_better_is_at_hand(copies, tripled, raw_bucket):
    blobs, scrub = tripled
    for path in (copies.in_store(blobs[0]), copies.in_mirror(blobs[0])):
        path.write_bytes(b"rotten too")
    raw_bucket.put(blobs[0].sha256, (half := raw_bucket.objects()[copies.in_store(blobs[0]).name][:-9]))
    assert len(scrub(repair=True).unrepaired) == 3
    assert raw_bucket.objects()[copies.in_store(blobs[0]).name] == half


def test_the_bucket_has_its_own_turns_and_its_state_lies_in_it(copies, tripled, bucket, raw_bucket, depot_database):
    blobs, scrub = tripled

    def judged():
        return check_bucket_scrubbed(lambda: bucket, PERIOD)

    assert judged().status is Status.UNKNOWN
    scrub(repair=True, prefixes=PREFIXES[:255])
    found = judged()
    assert (found.status, found.figures["never_verified_prefixes"]) == (Status.UNKNOWN, 1)
    scrub(repair=True, prefixes=PREFIXES)
    assert judged().status is Status.HEALTHY
    options = ScrubOptions(timedelta(days=1), workers=2, bucket_period=timedelta(days=256))
    with (
        open_records(depot_database.dump_url) as records,
        open_scrubber(copies.root, None, records, options, None, lambda: bucket) as scrubber,
    ):
        before = load_bucket_state(bucket).verified_at
        assert scrubber.scrub_due().prefixes == 256, "of the store"
        after = load_bucket_state(bucket).verified_at
        assert [prefix for prefix in PREFIXES if after[prefix] != before[prefix]] == [min(before, key=before.get)]
    raw_bucket.put(blobs[0].sha256, b"rotten")
    scrub(repair=False)
    assert (judged().status, judged().figures["damaged_objects"]) == (Status.UNHEALTHY, 1)

    def unreachable():
        raise PlaceError("no answer")

    assert check_bucket_scrubbed(unreachable, PERIOD).status is Status.UNKNOWN


def test_an_object_that_the_bucket_does_not_hand_out_is_damage_and_a_bucket_that_is_away_is_none(
    copies, tripled, bucket, monkeypatch
):
    blobs, scrub = tripled

    def refuses(key, chunks=bucket.chunks):
        if blobs[0].sha256 in key:
            raise PlaceError("HTTP 500")
        return chunks(key)

    with monkeypatch.context() as patched:
        patched.setattr(bucket, "chunks", refuses)
        found = scrub(repair=False)
    assert [(one.sha256, one.seen) for one in found.damaged] == [(blobs[0].sha256, "it cannot be read: HTTP 500")]
    assert (found.status, found.unread) == (Status.UNHEALTHY, {})

    def away(*_, **__):
        raise PlaceError("no answer")

    for name in ("chunks", "size_bytes", "replace"):
        monkeypatch.setattr(bucket, name, away)
    found = scrub(repair=True)
    assert (found.damaged, found.unread, found.status) == ([], {"bucket": "no answer"}, Status.UNKNOWN)


def test_who_needs_what_is_damaged_is_named(copies, mirrored, depot_database):
    blobs, scrub = mirrored
    History(depot_database.superuser_url).version(blobs[0].sha256, "Content/hero.uasset")
    copies.in_store(blobs[0]).write_bytes(b"junk")
    assert [str(version) for version in scrub(repair=False).affected] == ["Hero Content/hero.uasset#1"]


def test_a_read_heals_the_store_from_the_mirror_and_keeps_what_was_damaged(copies, mirrored):
    blobs, _ = mirrored
    truth = copies.objects()
    for seed in range(30):
        chance = random.Random(seed)
        victim, other = chance.sample(blobs, 2)
        kind = copies.damage(copies.root, chance, victim, other)
        lay_there = None if kind == "remove" else copies.in_store(victim).read_bytes()
        assert copies.store.heal(victim)
        assert copies.objects() == truth
        kept = [path.read_bytes() for path in (copies.root / "quarantine" / victim.sha256).glob("*.bin.gz")]
        assert lay_there is None or lay_there in kept


def test_damage_in_both_copies_stays_an_alarm_until_the_content_comes_again(copies, mirrored):
    blobs, scrub = mirrored
    copies.in_store(blobs[0]).unlink()
    copies.in_mirror(blobs[0]).write_bytes(b"junk")
    assert not copies.store.heal(blobs[0])
    result = scrub(repair=True)
    assert {(d.copy_name, d.sha256) for d in result.unrepaired} == {
        ("store", blobs[0].sha256),
        ("mirror", blobs[0].sha256),
    }
    found = check_scrubbed(copies.root, copies.mirror_root, PERIOD)
    assert (found.status, found.figures["damaged_objects"]) == (Status.UNHEALTHY, 2)
    copies.put(copies.some_contents(7, 12)[0])
    assert not scrub(repair=True).unrepaired
    found = check_scrubbed(copies.root, copies.mirror_root, PERIOD)
    assert (found.status, found.figures["damaged_objects"]) == (Status.HEALTHY, 0)


def test_the_age_of_the_oldest_verification_is_an_alarm(copies, mirrored):
    _, scrub = mirrored
    assert check_scrubbed(copies.root, copies.mirror_root, PERIOD).status is Status.UNKNOWN
    scrub(repair=False)
    assert check_scrubbed(copies.root, copies.mirror_root, PERIOD).status is Status.HEALTHY
    state = load_state(copies.mirror_root)
    assert state is not None
    del state.verified_at["7f"]
    save_state(copies.mirror_root, state)
    never = check_scrubbed(copies.root, copies.mirror_root, PERIOD)
    assert (never.status, never.figures["never_verified_prefixes"]) == (Status.UNKNOWN, 1)
    assert "1 of 256 parts of the mirror" in never.detail
    state.since -= timedelta(days=33)
    save_state(copies.mirror_root, state)
    assert check_scrubbed(copies.root, copies.mirror_root, PERIOD).status is Status.UNHEALTHY
    state.verified_at = {prefix: datetime.now(UTC) for prefix in PREFIXES}
    state.verified_at["7f"] -= timedelta(days=33)
    save_state(copies.mirror_root, state)
    assert check_scrubbed(copies.root, copies.mirror_root, PERIOD).status is Status.UNHEALTHY
    (copies.mirror_root / STATE_NAME).write_text("{")
    assert check_scrubbed(copies.root, copies.mirror_root, PERIOD).status is Status.UNKNOWN


@pytest.mark.parametrize("days", [1, 7, 30, 365])
def test_a_share_each_day_reaches_everything_within_the_period(days):
    start = datetime(2026, 1, 1, tzinfo=UTC)
    state = ScrubState(since=start)
    for day in range(3 * days):
        now = start + timedelta(days=day)
        for prefix in state.due(timedelta(days=days), now):
            state.verified_at[prefix] = now
        assert all(now - state.verified(prefix) <= timedelta(days=days) for prefix in PREFIXES)


def test_what_was_never_read_is_caught_up_with_where_reading_is_free():
    now = datetime.now(UTC)
    state = ScrubState(verified_at=dict.fromkeys(PREFIXES[:200], now - timedelta(days=1)))
    assert set(PREFIXES[200:]) <= set(state.due(PERIOD, now, catch_up=True))
    assert len(state.due(PERIOD, now)) == 9
    state.verified_at |= dict.fromkeys(PREFIXES, now)
    assert len(state.due(PERIOD, now, catch_up=True)) == 9


@pytest.mark.parametrize("total", [1, 7, 256])
def test_the_shards_together_are_everything_once(total):
    assert sorted(p for n in range(1, total + 1) for p in shard_of(n, total)) == PREFIXES


def test_the_command_exits_0_1_or_3_and_keeps_evidence(copies, mirrored, depot_database, monkeypatch):
    blobs, _ = mirrored
    monkeypatch.setenv("ASSET_STORAGE_PATH", str(copies.root))
    monkeypatch.setenv("ASSET_STORAGE_REPLICA_PATH", str(copies.mirror_root))
    monkeypatch.setenv("DEPOT_DUMP_URL", depot_database.dump_url)

    def run(*arguments):
        return CliRunner().invoke(app, ["scrub", *arguments])

    assert run("--all").exit_code == 0
    copies.in_store(blobs[3]).write_bytes(b"junk")
    found = run("--all", "--json")
    assert found.exit_code == 1
    assert json.loads(found.stdout)["damaged"][0]["sha256"] == blobs[3].sha256
    share = run(*("--shard", f"{int(blobs[3].sha256[:2], 16) + 1}/256", "--repair"))
    assert share.exit_code == 0, share.stderr
    assert run().exit_code == 0
    assert len(list((copies.root / "evidence").glob("scrub-*.json"))) == 4
    assert [run("--shard", bad).exit_code for bad in ("0/3", "4/3", "x", "1/257")] == [2] * 4
    monkeypatch.setenv("DEPOT_DUMP_URL", "postgresql://127.0.0.1:1/none")
    assert run("--all").exit_code == 3


def test_the_command_reads_the_bucket_where_it_is_told_to(copies, tripled, raw_bucket, depot_database, monkeypatch):
    blobs, _ = tripled
    monkeypatch.setenv("ASSET_STORAGE_REPLICA_PATH", str(copies.mirror_root))
    monkeypatch.setenv("DEPOT_DUMP_URL", depot_database.dump_url)
    raw_bucket.put(blobs[0].sha256, b"rotten")

    def run(*arguments):
        return CliRunner().invoke(app, arguments)

    assert run("scrub", "--all").exit_code == 0
    found = run("scrub", "--all", "--bucket")
    assert (found.exit_code, f"{blobs[0].sha256} in the bucket" in found.output) == (1, True)
    assert run("verify-bucket").exit_code == 0
    assert raw_bucket.objects() == copies.objects()
    assert run("scrub", "--bucket").exit_code == 2
    told = json.loads(run("check", "--json").stdout)["findings"]
    bucket_checks = ["object_storage_lag", "object_storage_complete", "object_storage_verified"]
    assert [one["check"] for one in told] == ["mirror_lag", "mirror_complete", "scrub_age", *bucket_checks]
    assert {one["status"] for one in told} == {"healthy"}
    monkeypatch.setenv("SCRUB_BUCKET_PERIOD_DAYS", "0")
    monkeypatch.delenv("ASSET_STORAGE_REPLICA_PATH")
    told = json.loads(run("check", "--json").stdout)["findings"]
    assert [one["check"] for one in told] == ["scrub_age", *bucket_checks[:2]]
    monkeypatch.setenv("S3_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("S3_ATTEMPTS", "1")
    assert run("verify-bucket").exit_code == 3
