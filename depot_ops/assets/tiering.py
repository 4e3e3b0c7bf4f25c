"""Colder storage for cold content, where the settings name a policy and the operations layer moves or evicts."""

import dagster as dg

from depot_ops.settings import TierChoiceSettings, load
from depot_ops.tiering.evict import Evicted
from depot_ops.tiering.plan import Plan
from depot_ops.tiering.run import configured, evict

NAMED = 100
Metadata = dict[str, dg.MetadataValue | int | float | str]


@dg.asset(
    group_name="blobs",
    owners=["team:depot-operations"],
    kinds={"s3"},
    pool="object_storage",
    description=(
        "Every object at BLOB_COPY_URL in the storage class that the policy in TIER_POLICY_PATH wants, by what refers"
        " to it: down when it is cold, up again when it is referred to anew. When this is red, some objects could not"
        " be moved: the run names them. Nothing is lost or unreadable by that; it only costs more. Fix the cause and"
        " launch nightly_tiering, which does the rest. With TIER_EVICT, cold content leaves the store's disk first,"
        " where mirror and bucket both have it whole; in lifecycle mode that is all it does."
    ),
)
def blob_tiering() -> dg.MaterializeResult[None]:
    choice = load(TierChoiceSettings)
    evicted = evict(delete=True) if choice.tier_evict else Evicted()
    freed: Metadata = {
        "evicted_objects": evicted.evicted_objects,
        "evicted_bytes": evicted.freed_bytes,
        "kept_objects": evicted.kept_objects,
    }
    if not choice.is_explicit:
        return dg.MaterializeResult(metadata=freed)
    tiering = configured()
    tiering.configuration(write=True)
    result = tiering.apply()
    metadata: Metadata = freed | {
        "moved_objects": result.moved_objects,
        "moved_bytes": result.moved_bytes,
        "moved_up_objects": result.moved_up_objects,
        "restoring_objects": result.restore_requested_objects + result.restoring_objects,
        "failed_objects": len(result.failed),
        "duration_seconds": result.duration_seconds,
        **(_costs(result.plan) if result.plan else {}),
    }
    if result.failed:
        metadata["failed"] = dg.MetadataValue.md("\n".join(f"- {line}" for line in result.failed[:NAMED]))
        raise dg.Failure(f"{len(result.failed)} objects could not be moved", metadata=metadata)
    return dg.MaterializeResult(metadata=metadata)


def _costs(plan: Plan) -> Metadata:
    """A month, as the policy has it, when all is moved: each figure is a curve in the UI."""
    figures: Metadata = {"currency": plan.currency, "cost_a_month": plan.cost_after, "moves_cost": plan.moves_cost}
    for line in plan.classes:
        name = line.storage_class.lower()
        figures |= {f"{name}_objects": line.objects_after, f"{name}_bytes": line.bytes_after}
        if line.cost_after is not None:
            figures[f"{name}_cost_a_month"] = line.cost_after
    return figures
