"""The depot service, as the operations layer sees it: it runs elsewhere and is only asked how it is."""

import dagster as dg

depot_service = dg.AssetSpec(
    "depot_service",
    group_name="service",
    owners=["team:depot-operations"],
    kinds={"fastapi"},
    description=(
        "The depot's REST service at DEPOT_URL. Dagster does not make it; it asks its /health, which answers for the"
        " database, the blob store and the migrations."
    ),
)
