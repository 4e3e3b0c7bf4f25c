"""The blob store and its copies."""

import dagster as dg

from depot_ops.blobs import run
from depot_ops.blobs.inventory import require_store
from depot_ops.blobs.mirror import MirrorOptions, open_mirror
from depot_ops.blobs.push import Push, PushOptions
from depot_ops.blobs.remote import push_target
from depot_ops.settings import BlobSettings, PushSettings, load

NAMED = 100
Metadata = dict[str, dg.MetadataValue | int | float | str]


@dg.asset(
    group_name="blobs",
    owners=["team:depot-operations"],
    kinds={"filesystem"},
    pool="blob_disk",
    description=(
        "Every object and document of the blob store once more below ASSET_STORAGE_REPLICA_PATH, verified on arrival."
        " New ones follow within seconds by `depot-ops blobs mirror --follow`; each night all is compared. When this is"
        " red, objects in the store are damaged or the mirror's disk is full or away: the run says which. Launch"
        " nightly_scrub for the first; what is in the mirror stays there in either case."
    ),
)
def blob_mirror() -> dg.MaterializeResult[None]:
    settings = load(BlobSettings)
    options = MirrorOptions(settings.blob_workers, settings.mirror_bytes_per_second)
    with open_mirror(settings.asset_storage_path, settings.asset_storage_replica_path, options) as mirror:
        result = mirror.reconcile()
    metadata: Metadata = {
        "objects": result.objects_seen,
        "copied_objects": result.objects_copied,
        "copied_bytes": result.copied_bytes,
        "copied_documents": result.refs_copied,
        "duration_seconds": result.duration_seconds,
        "rate_bytes_per_second": _rate(result.copied_bytes, result.duration_seconds),
        "damaged_objects": len(result.damaged),
    }
    if not result.is_complete:
        metadata["damaged"] = _listed([f"{found.sha256}: {found.seen}" for found in result.damaged])
        metadata["unreadable_documents"] = _listed(result.unreadable_refs)
        raise dg.Failure("objects or documents of the store are damaged and were not copied", metadata=metadata)
    return dg.MaterializeResult(metadata=metadata)


@dg.asset(
    group_name="blobs",
    owners=["team:depot-operations"],
    kinds={"s3"},
    pool="object_storage",
    description=(
        "Every object and document of the blob store once more in the bucket at BLOB_COPY_URL, read through before it"
        " was sent. New ones follow within seconds by `depot-ops blobs push --follow`; each night all names and sizes"
        " are compared. When this is red, the bucket does not answer, or objects in the store are damaged: the run says"
        " which. Launch nightly_scrub for the second; what is in the bucket stays there in either case."
    ),
)
def blob_object_storage() -> dg.MaterializeResult[None]:
    settings = load(PushSettings)
    options = PushOptions(settings.blob_workers, settings.push_bytes_per_second)
    result = Push(require_store(settings.asset_storage_path), push_target(), options).reconcile()
    metadata: Metadata = {
        "objects": result.objects_seen,
        "sent_objects": result.objects_sent,
        "sent_bytes": result.sent_bytes,
        "sent_documents": result.refs_sent,
        "duration_seconds": result.duration_seconds,
        "rate_bytes_per_second": _rate(result.sent_bytes, result.duration_seconds),
        "damaged_objects": len(result.damaged),
    }
    if not result.is_complete:
        metadata["damaged"] = _listed([f"{found.sha256}: {found.seen}" for found in result.damaged])
        metadata["unreadable_documents"] = _listed(result.unreadable_refs)
        raise dg.Failure("objects or documents of the store are damaged and were not sent", metadata=metadata)
    return dg.MaterializeResult(metadata=metadata)


@dg.asset(
    group_name="blobs",
    owners=["team:depot-operations"],
    kinds={"filesystem"},
    pool="blob_disk",
    description=(
        "A night's share of the store, its mirror and its bucket, read through and re-hashed: all is read within"
        " SCRUB_PERIOD_DAYS, the bucket within SCRUB_BUCKET_PERIOD_DAYS. What is damaged in one copy is repaired from"
        " another. When this is red an object is whole in no copy, or a copy did not answer: the run names it, and the"
        " versions that need it. Look for it on the artists' machines; sending it again heals it."
    ),
)
def blob_scrub(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    result = run.scrub(None, repair=True)
    for found in result.damaged[:NAMED]:  # an event for each, in Dagster's own database, which outlives the depot's
        context.log_event(dg.AssetObservation(context.asset_key, metadata=found.model_dump(mode="json")))
    metadata: Metadata = {
        "objects": result.objects_read,
        "read_bytes": result.read_bytes,
        "prefixes": result.prefixes,
        "duration_seconds": result.duration_seconds,
        "rate_bytes_per_second": result.rate_bytes_per_second,
        "damaged_objects": len(result.damaged),
        "repaired_objects": len(result.damaged) - len(result.unrepaired),
        "archived_objects": result.archived_objects,
        "damaged": _listed([f"{found.sha256} in the {found.copy_name}: {found.seen}" for found in result.damaged]),
        "affected": _listed([str(version) for version in result.affected]),
    }
    if result.unread:
        metadata["unread"] = _listed([f"{name}: {why}" for name, why in result.unread.items()])
    if result.unrepaired:
        raise dg.Failure(f"{len(result.unrepaired):,} objects could not be repaired", metadata=metadata)
    if result.unread:
        raise dg.Failure("a copy could not be read through; the others were", metadata=metadata)
    return dg.MaterializeResult(metadata=metadata)


@dg.asset(
    group_name="blobs",
    owners=["team:depot-operations"],
    kinds={"filesystem", "postgres"},
    pool="blob_disk",
    deps=[blob_scrub],
    description=(
        "Content that no version, shelf, merge, upload or kept backup refers to: marked, and removed from every copy"
        " after COLLECT_GRACE_HOURS when COLLECT_DELETE is true; else only told. When this is red nothing was removed"
        " that is needed: a backup's record or a copy cannot be read. The run says which; disks fill until it works."
    ),
)
def blob_collection() -> dg.MaterializeResult[None]:
    result = run.collect()
    return dg.MaterializeResult(
        metadata={
            "marked_objects": result.marked_objects,
            "waiting_objects": result.waiting_objects,
            "waiting_bytes": result.waiting_bytes,
            "due_objects": result.due_objects,
            "due_bytes": result.due_bytes,
            "removed_objects": result.removed_objects,
            "adopted_objects": result.adopted_objects,
            "duration_seconds": result.duration_seconds,
            "unreferenced_before": result.unreferenced_before.isoformat(),
        }
    )


def _rate(size_bytes: int, seconds: float) -> int:
    return round(size_bytes / seconds) if seconds else 0


def _listed(lines: list[str]) -> dg.MarkdownMetadataValue:
    more = [f"- and {len(lines) - NAMED:,} more"] if len(lines) > NAMED else []
    return dg.MetadataValue.md("\n".join([*(f"- {line}" for line in lines[:NAMED]), *more]) or "none")


STORE_ASSETS = [blob_scrub, blob_collection]
