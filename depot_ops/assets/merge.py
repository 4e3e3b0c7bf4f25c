"""What merges of branches come to."""

import dagster as dg

branch_merge = dg.AssetSpec(
    "branch_merge",
    group_name="merge",
    owners=["team:depot-operations"],
    kinds={"fastapi"},
    description=(
        "Each merge that was carried out here, with its figures: paths, conflicts, bytes, seconds. A materialization"
        " says how the merge stands: merged, or waiting for people to choose. When a run of merge_execution is red,"
        " its merge has not landed and nothing is half-done: the error says what to put right, and a lead queues the"
        " job again with PATCH /merge-jobs/{id}."
    ),
)
