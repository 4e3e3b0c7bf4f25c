"""In Dagster: the copies are kept, read through and collected, with figures that can be plotted, and red says why."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import dagster as dg
import psycopg
import pytest

from depot_ops import jobs, schedules
from depot_ops.assets.blobs import STORE_ASSETS, blob_mirror, blob_object_storage
from depot_ops.checks.blobs import BUCKET_CHECKS, BUCKET_READ_CHECKS, MIRROR_CHECKS, STORE_CHECKS

defs = dg.Definitions(
    [*STORE_ASSETS, blob_mirror, blob_object_storage],
    asset_checks=[*STORE_CHECKS, *MIRROR_CHECKS, *BUCKET_CHECKS, *BUCKET_READ_CHECKS],
    jobs=[*jobs.WITH_MIRROR, *jobs.WITH_BUCKET, jobs.nightly_scrub, jobs.weekly_collection],
    schedules=[*schedules.WITH_MIRROR, *schedules.WITH_BUCKET],
)
NAMES = [job.name for job in jobs.WITH_MIRROR]


@pytest.fixture
def configured(copies, depot_database, tmp_path, monkeypatch):
    environment = {
        "ASSET_STORAGE_PATH": str(copies.root),
        "ASSET_STORAGE_REPLICA_PATH": str(copies.mirror_root),
        "DEPOT_DUMP_URL": depot_database.dump_url,
        "DATABASE_OWNER_URL": depot_database.owner_url,
        "BACKUP_DIR": str(tmp_path),
        "SCRUB_PERIOD_DAYS": "1",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    copies.record(depot_database.owner_url, copies.put_some(1, 8))
    return copies


def run_job(name: str) -> dg.ExecuteInProcessResult:
    with dg.DagsterInstance.ephemeral() as instance:
        return defs.resolve_job_def(name).execute_in_process(instance=instance, raise_on_error=False)


def passed(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {evaluation.check_name: evaluation.passed for evaluation in result.get_asset_check_evaluations()}


def figures(result: dg.ExecuteInProcessResult, node: str) -> dict[str, object]:
    metadata = result.asset_materializations_for_node(node)[0].metadata
    return {name: value.value for name, value in metadata.items()}


def test_the_bucket_is_kept(configured, rclone_s3, monkeypatch):
    for name, value in rclone_s3.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("BLOB_COPY_URL", rclone_s3.bucket("nightly-push"))
    monkeypatch.setenv("MIRROR_MAX_LAG_SECONDS", "0.001")
    assert not any(passed(run_job("bucket_check")).values())
    pushed = run_job("nightly_push")
    healthy = {"object_storage_lag": True, "object_storage_complete": True}
    assert passed(pushed) == healthy | {"object_storage_verified": False}, "never read through yet"
    assert figures(pushed, "blob_object_storage")["sent_objects"] == 8
    monkeypatch.setenv("SCRUB_BUCKET_PERIOD_DAYS", "1")
    configured.mirror()
    assert figures(run_job("nightly_scrub"), "blob_scrub")["objects"] == 24
    assert passed(run_job("bucket_check")) == healthy | {"object_storage_verified": True}
    next(iter(configured.root.rglob("*.bin.gz"))).write_bytes(b"bad")
    assert run_job("nightly_push").success is False


def test_a_bucket_that_does_not_answer_is_red_and_the_disks_are_read(configured, monkeypatch):
    configured.mirror()
    for name, value in {"BLOB_COPY_URL": "s3://none/x", "S3_ENDPOINT_URL": "http://127.0.0.1:1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("S3_ATTEMPTS", "1")
    victim = next(iter(configured.root.rglob("*.bin.gz")))
    content = victim.read_bytes()
    victim.write_bytes(b"bad")
    scrubbed = run_job("nightly_scrub")
    assert not scrubbed.success
    assert victim.read_bytes() == content


def test_the_copies_are_kept_and_read_through(configured):
    assert passed(run_job("mirror_check"))["mirror_complete"] is False
    mirrored = run_job("nightly_mirror")
    assert mirrored.success
    assert passed(mirrored) == {"mirror_lag": True, "mirror_complete": True}
    assert figures(mirrored, "blob_mirror")["copied_objects"] == 8
    next(iter(configured.mirror_root.rglob("*.bin.gz"))).write_bytes(b"bad")
    scrubbed = run_job("nightly_scrub")
    assert (scrubbed.success, passed(scrubbed)) == (True, {"scrub_age": True})
    found = figures(scrubbed, "blob_scrub")
    assert (found["objects"], found["damaged_objects"], found["repaired_objects"]) == (16, 1, 1)
    (event,) = [event for event in scrubbed.all_events if event.event_type == dg.DagsterEventType.ASSET_OBSERVATION]
    seen = event.asset_observation_data.asset_observation.metadata
    assert (seen["copy_name"].value, seen["repaired"].value) == ("mirror", True)
    assert configured.mirrored() == configured.objects()


def test_what_is_whole_nowhere_is_red(configured):
    configured.mirror()
    for root in (configured.root, configured.mirror_root):
        sorted(root.rglob("*.bin.gz"))[0].unlink()
    assert not run_job("nightly_scrub").success


def test_without_a_mirror_the_store_alone_is_read_and_collected(configured, monkeypatch, estate, depot_database):
    monkeypatch.delenv("ASSET_STORAGE_REPLICA_PATH")
    scrubbed = run_job("nightly_scrub")
    assert (scrubbed.success, passed(scrubbed)) == (True, {"scrub_age": True})
    assert figures(scrubbed, "blob_scrub")["objects"] == 8
    monkeypatch.setenv("BACKUP_DIR", str(estate.backup_dir))
    monkeypatch.setenv("COLLECT_DELETE", "true")
    estate.dump(datetime.now(UTC) + timedelta(days=1))
    with psycopg.connect(depot_database.owner_url, autocommit=True) as owner:
        assert run_job("weekly_collection").success
        owner.execute("UPDATE blob_tombstones SET unreferenced_at = unreferenced_at - interval '30 days'")
    assert figures(run_job("weekly_collection"), "blob_collection")["removed_objects"] == 8
    assert configured.objects() == {}


def test_a_collection_without_backups_refuses(configured):
    result = run_job("weekly_collection")
    assert not result.success
    assert len(configured.objects()) == 8


def test_they_are_there_where_the_settings_name_a_mirror(tmp_path):
    tell = "from depot_ops.definitions import defs; print(*(job.name for job in defs.jobs))"
    environment = {**os.environ, "ASSET_STORAGE_REPLICA_PATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", tell], env=environment, capture_output=True, text=True, check=True)
    assert set(NAMES) <= set(done.stdout.split())


@pytest.mark.parametrize("name", sorted(NAMES))
def test_each_says_whose_it_is_and_what_red_means(name):
    job = defs.resolve_job_def(name)
    assert job.description
    assert {"dagster/max_runtime", "owner"} <= set(job.tags)
