"""What `depot-ops blobs` and Dagster call: scrub, collection and their checks as they are configured."""

from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import partial

from depot_ops.blobs.collect import Collected, CollectPolicy, all_copies
from depot_ops.blobs.collect import collect as collect_from
from depot_ops.blobs.mirror import check_complete, check_lag
from depot_ops.blobs.push import check_push_complete, check_push_lag
from depot_ops.blobs.records import open_records
from depot_ops.blobs.remote import bucket_copy, push_target
from depot_ops.blobs.scrub import (
    Scrubbed,
    ScrubOptions,
    Told,
    check_bucket_scrubbed,
    check_scrubbed,
    open_scrubber,
)
from depot_ops.blobs.scrub_copies import CopyName
from depot_ops.evidence import Finding
from depot_ops.places import open_place
from depot_ops.settings import BlobSettings, CatalogueSettings, CollectionSettings, PushSettings, ScrubSettings, load


def scrub(
    prefixes: Iterable[str] | None,
    *,
    repair: bool,
    with_bucket: bool = False,
    only: CopyName | None = None,
    told: Told = lambda _done, _all: None,
) -> Scrubbed:
    """Read through what lies under these prefixes on disk, and `with_bucket` there too, which object storage bills for.

    Without prefixes: a day's share of each copy, of the bucket as SCRUB_BUCKET_PERIOD_DAYS says.
    Raises SettingsError, CopyUnreachable, ScrubRunning, CatalogueUnreachable and OSError.
    """
    settings = load(ScrubSettings)
    options = ScrubOptions(
        timedelta(days=settings.scrub_period_days),
        repair,
        settings.blob_workers,
        settings.mirror_max_lag_seconds,
        timedelta(days=settings.scrub_bucket_period_days),
    )
    reads_bucket = settings.reads_bucket if prefixes is None else with_bucket
    paths = (settings.asset_storage_path, settings.asset_storage_replica_path)
    with (
        open_records(load(CatalogueSettings).depot_dump_url.get_secret_value()) as records,
        open_scrubber(*paths, records, options, bucket_copy(), push_target if reads_bucket else None) as scrubber,
    ):
        return scrubber.scrub_due(told) if prefixes is None else scrubber.scrub(prefixes, told, only)


def collect(*, delete: bool | None = None) -> Collected:
    """Mark, and with `delete` remove; None is what COLLECT_DELETE says. Raises SettingsError and CollectError."""
    settings, collection = load(ScrubSettings), load(CollectionSettings)
    second = collection.backup_copy_url
    policy = CollectPolicy(
        collection.backup_dir,
        timedelta(hours=collection.collect_grace_hours),
        collection.collect_delete if delete is None else delete,
        open_copy=partial(open_place, second) if second else None,
    )
    copies = all_copies(settings.asset_storage_path, settings.asset_storage_replica_path, bucket_copy())
    return collect_from(collection.database_owner_url.get_secret_value(), settings.asset_storage_path, [copies], policy)


# Checks ---------------------------------------------------------------------------------------------------------------


def mirror_lag() -> Finding:
    settings = load(BlobSettings)
    return check_lag(settings.asset_storage_path, settings.asset_storage_replica_path, settings.mirror_max_lag_seconds)


def mirror_complete() -> Finding:
    settings = load(BlobSettings)
    return check_complete(settings.asset_storage_replica_path, _catalogue(), settings.mirror_max_lag_seconds)


def scrub_age() -> Finding:
    settings = load(ScrubSettings)
    period = timedelta(days=settings.scrub_period_days)
    return check_scrubbed(settings.asset_storage_path, settings.asset_storage_replica_path, period)


def bucket_lag() -> Finding:
    settings = load(PushSettings)
    return check_push_lag(settings.asset_storage_path, push_target, settings.mirror_max_lag_seconds)


def bucket_complete() -> Finding:
    return check_push_complete(push_target, _catalogue(), load(PushSettings).mirror_max_lag_seconds)


def bucket_verified() -> Finding:
    return check_bucket_scrubbed(push_target, timedelta(days=load(ScrubSettings).scrub_bucket_period_days))


def _catalogue() -> str:
    return load(CatalogueSettings).depot_dump_url.get_secret_value()


def checks_of_copies() -> list[Callable[[], Finding]]:
    """Those that the settings give something to look at. Raises SettingsError."""
    settings = load(ScrubSettings)
    return [
        *([mirror_lag, mirror_complete] if settings.asset_storage_replica_path else []),
        scrub_age,
        *([bucket_lag, bucket_complete] if settings.blob_copy_url else []),
        *([bucket_verified] if settings.reads_bucket else []),
    ]
