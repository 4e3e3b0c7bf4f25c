"""The copies of the blob store: does the mirror keep up, is it complete, was all read through, is what may go gone?"""

from collections.abc import Callable
from datetime import timedelta

import dagster as dg

from depot_ops.assets.blobs import blob_collection, blob_mirror, blob_object_storage, blob_scrub
from depot_ops.blobs import run
from depot_ops.blobs.collect import check_collected
from depot_ops.checks.result import check_result
from depot_ops.evidence import Finding
from depot_ops.settings import PushSettings, load

# Weekly, and a day for one that was missed.
COLLECTION_MAX_AGE = timedelta(days=8)


def _collected() -> Finding:
    return check_collected(load(PushSettings).asset_storage_path, COLLECTION_MAX_AGE)


def _check(
    asset: dg.AssetsDefinition, name: str, description: str, look: Callable[[], Finding]
) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=asset, name=name, description=description, blocking=True)
    def check() -> dg.AssetCheckResult:
        return check_result(look())

    return check


MIRROR_CHECKS = [
    _check(
        blob_mirror,
        "mirror_lag",
        "No object waits for the mirror longer than MIRROR_MAX_LAG_SECONDS. When this is red, content exists once only:"
        " look whether `depot-ops blobs mirror --follow` runs, and whether the mirror's disk has room.",
        run.mirror_lag,
    ),
    _check(
        blob_mirror,
        "mirror_complete",
        "Every object that the catalogue names lies in the mirror, in its recorded size. When this is red, launch"
        " nightly_mirror; what is missing then is missing in the store too: launch nightly_scrub.",
        run.mirror_complete,
    ),
]

STORE_CHECKS = [
    _check(
        blob_scrub,
        "scrub_age",
        "Every object of the store and its mirror was read through within SCRUB_PERIOD_DAYS, and none is known to be"
        " damaged; unknown until all was read once. When this is red by age, launch nightly_scrub until it is green; by"
        " damage, read the newest scrub's evidence.",
        run.scrub_age,
    ),
    _check(
        blob_collection,
        "blobs_collected",
        "A collection came to its end within 8 days, and could read all that it met. When this is red nothing is lost;"
        " the disks fill. Read the error of the newest weekly_collection.",
        _collected,
    ),
]

BUCKET_CHECKS = [
    _check(
        blob_object_storage,
        "object_storage_lag",
        "No object and no document waits for the bucket longer than MIRROR_MAX_LAG_SECONDS. When this is red, look"
        " whether `depot-ops blobs push --follow` runs, and what it logs.",
        run.bucket_lag,
    ),
    _check(
        blob_object_storage,
        "object_storage_complete",
        "Every object that the catalogue names lies in the bucket, in its recorded size. When this is red, launch"
        " nightly_push; what is missing then is missing in the store too: launch nightly_scrub.",
        run.bucket_complete,
    ),
]

BUCKET_READ_CHECKS = [
    _check(
        blob_object_storage,
        "object_storage_verified",
        "Every object in the bucket was read through within SCRUB_BUCKET_PERIOD_DAYS, and none is known to be damaged;"
        " unknown until all was read once, which `depot-ops blobs verify-bucket` does now. When this is red by damage,"
        " read the newest scrub's evidence.",
        run.bucket_verified,
    ),
]
