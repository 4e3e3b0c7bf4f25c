"""What `depot-ops tier` and Dagster call: tiering as it is configured."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from depot_ops.blobs.scrub import EVIDENCE
from depot_ops.blobs.scrub_state import write_durably
from depot_ops.evidence import Figures, Finding, Status
from depot_ops.settings import BlobPlaceSettings, CatalogueSettings, EvictionSettings, TieringSettings, TierMode, load
from depot_ops.tiering.bucket import TieredBucket, open_bucket
from depot_ops.tiering.catalogue import open_catalogue
from depot_ops.tiering.documents import load_document
from depot_ops.tiering.evict import Evicted, Eviction
from depot_ops.tiering.lifecycle import LifecycleChange, archive_tiers, configure, lifecycle_rules
from depot_ops.tiering.plan import Placement, Plan, Tally
from depot_ops.tiering.policy import Policy
from depot_ops.tiering.prices import PriceTable, load_prices
from depot_ops.tiering.transitions import Tiered, apply_moves

TIERED = "blobs_tiered"


@dataclass(frozen=True)
class Tiering:
    """A policy, and the bucket that it is for."""

    policy: Policy
    prices: PriceTable
    mode: TierMode
    bucket: TieredBucket
    catalogue_url: str
    evidence: Path
    workers: int
    restore_days: int

    def plan(self) -> Plan:
        """The dry run. Raises CatalogueUnreachable and PlaceError."""
        tally = Tally()
        with self._placements(tally) as placements:
            for _ in placements:
                pass
        return tally.plan(self.prices)

    def configuration(self, *, write: bool) -> LifecycleChange:
        """The bucket's own rules, as policy and mode say. Raises LifecycleRefused and PlaceError."""
        prefix = self.bucket.objects_prefix
        rules = lifecycle_rules(self.policy, prefix) if self.mode is TierMode.LIFECYCLE else []
        return configure(self.bucket, rules, archive_tiers(self.policy, prefix), write=write)

    def apply(self) -> Tiered:
        """Move everything that is not where it is wanted. Raises CatalogueUnreachable and PlaceError."""
        tally = Tally()
        with self._placements(tally) as placements:
            result = apply_moves(self.bucket, placements, self.restore_days, self.workers)
        if not result.stopped:
            result.plan = tally.plan(self.prices)
        self.evidence.mkdir(parents=True, exist_ok=True)
        write_durably(self.evidence / f"tiering-{result.started_at:%Y%m%dT%H%M%S%fZ}.json", result)
        return result

    @contextmanager
    def _placements(self, tally: Tally) -> Iterator[Iterator[Placement]]:
        with open_catalogue(self.catalogue_url) as catalogue:
            judged = catalogue.judged(self.policy, datetime.now(UTC))
            yield tally.place(judged, self.bucket.list_objects())


def configured() -> Tiering:
    """As the settings say. Raises SettingsError, DocumentError and PlaceError."""
    settings, place = load(TieringSettings), load(BlobPlaceSettings)
    return Tiering(
        policy=load_document(settings.tier_policy_path, Policy),
        prices=load_prices(settings.tier_prices_path),
        mode=settings.tier_mode,
        bucket=open_bucket(place.blob_copy_url),
        catalogue_url=load(CatalogueSettings).depot_dump_url.get_secret_value(),
        evidence=settings.asset_storage_path / EVIDENCE,
        workers=settings.tier_workers,
        restore_days=settings.tier_restore_days,
    )


def evict(*, delete: bool) -> Evicted:
    """Let cold content leave the store's disk, as the settings say; without `delete` only count.

    Raises SettingsError, DocumentError, PlaceError, CopyUnreachable, CatalogueUnreachable and OSError.
    """
    tiering, settings = configured(), load(EvictionSettings)
    eviction = Eviction(
        settings.asset_storage_path,
        settings.asset_storage_replica_path,
        tiering.bucket,
        settings.database_owner_url.get_secret_value(),
        timedelta(days=settings.tier_cache_days),
        settings.blob_workers,
    )
    with open_catalogue(tiering.catalogue_url) as catalogue:
        result = eviction.run(catalogue.judged(tiering.policy, datetime.now(UTC)), delete=delete)
    if delete:
        tiering.evidence.mkdir(exist_ok=True)
        write_durably(tiering.evidence / f"eviction-{result.started_at:%Y%m%dT%H%M%S%fZ}.json", result)
    return result


def check_tiered(store: Path, max_age: timedelta) -> Finding:
    """Did a run come to its end lately, with every object where it is wanted or on its way there?"""
    documents = sorted((store / EVIDENCE).glob("tiering-*.json"))
    if not documents:
        detail = f"{store} has no evidence of tiering. Run `depot-ops tier apply`."
        return Finding(check=TIERED, status=Status.UNKNOWN, detail=detail)
    try:
        newest = Tiered.model_validate_json(documents[-1].read_bytes())
    except (OSError, ValueError) as error:
        return Finding(check=TIERED, status=Status.UNKNOWN, detail=f"{documents[-1]} cannot be read: {error}")
    age_seconds = round((datetime.now(UTC) - newest.started_at).total_seconds())
    waiting = newest.restore_requested_objects + newest.restoring_objects
    figures: Figures = {"age_seconds": age_seconds, "waiting_objects": waiting, "failed_objects": len(newest.failed)}
    detail = (
        f"tiered {newest.started_at:%Y-%m-%d %H:%M} UTC: {newest.moved_objects:,} objects moved,"
        f" {waiting:,} are being restored, {len(newest.failed):,} failed"
    )
    good = not newest.failed and age_seconds <= max_age.total_seconds()
    return Finding(check=TIERED, status=Status.HEALTHY if good else Status.UNHEALTHY, detail=detail, figures=figures)
