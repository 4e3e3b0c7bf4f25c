"""The depot's own answer to how it is."""

import dagster as dg

from depot_ops.assets.service import depot_service
from depot_ops.checks.result import check_result
from depot_ops.resources import DepotService


@dg.asset_check(
    asset=depot_service.key,
    blocking=True,
    compute_kind="fastapi",
    description=(
        "GET DEPOT_URL/health answers 200 within 10 s, and every part says ok. When this is red users cannot work, or"
        " soon cannot: the result names the part (database, storage, migrations)."
    ),
)
def service_health(depot: DepotService) -> dg.AssetCheckResult:
    return check_result(depot.check_health())
