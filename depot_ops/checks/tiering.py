"""Does tiering do its work?"""

from datetime import timedelta

import dagster as dg

from depot_ops.assets.tiering import blob_tiering
from depot_ops.checks.result import check_result
from depot_ops.settings import TieringSettings, load
from depot_ops.tiering.run import check_tiered

# Nightly, and a night that was missed.
MAX_AGE = timedelta(days=2)


@dg.asset_check(
    asset=blob_tiering,
    name="blobs_tiered",
    description=(
        "A run came to its end within two days, and could move all that it wanted. When this is red nothing is lost;"
        " storage costs more than it has to. Read the newest run of nightly_tiering."
    ),
    blocking=True,
    compute_kind="s3",
)
def blobs_tiered() -> dg.AssetCheckResult:
    return check_result(check_tiered(load(TieringSettings).asset_storage_path, MAX_AGE))


tiering_checks = [blobs_tiered]
