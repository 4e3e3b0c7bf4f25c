"""The copies that the settings name: the mirror on another disk, the bucket in object storage, or both."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from depot_api.blobstore.bucket import BucketCopy
from depot_ops.blobs.restore import (
    RestoredBlobs,
    Source,
    Wanted,
    all_of_copies,
    directory_source,
    fetch_documents,
    restore_documents,
)
from depot_ops.settings import (
    BlobCopySettings,
    BlobPlaceSettings,
    ObjectStorageSettings,
    SettingsError,
    load,
)
from depot_ops.tiering.bucket import TieredBucket, open_bucket


@dataclass(frozen=True)
class Copies:
    """What a store can be filled from; at least one of them."""

    mirror: Path | None
    bucket: BucketCopy | None

    def sources(self) -> list[Source]:
        """The nearer one first. Raises CopyUnreachable."""
        found = [directory_source(self.mirror)] if self.mirror else []
        return [*found, self.bucket.stage] if self.bucket else found

    def everything(self) -> Iterator[Wanted]:
        """All that either has. Raises CopyUnreachable, SettingsError and PlaceError."""
        return all_of_copies(self.mirror, push_target() if self.bucket else None)

    def restore_documents(self, store: Path, workers: int, result: RestoredBlobs, *, from_both: bool = False) -> None:
        """From the nearer one; `from_both`, as without a catalogue, from the other what that has not.

        Raises BlobRestoreError, SettingsError and PlaceError.
        """
        if self.mirror:
            restore_documents(self.mirror, store, result)
        if self.bucket and (from_both or not self.mirror):
            fetch_documents(push_target(), store, workers, result, refetch=self.mirror is None)


def copies_with(mirror: Path | None) -> Copies:
    """The mirror, and the bucket that the settings name. Raises SettingsError when there is neither."""
    copies = Copies(mirror, bucket_copy())
    if copies.mirror is None and copies.bucket is None:
        raise SettingsError("Neither ASSET_STORAGE_REPLICA_PATH nor BLOB_COPY_URL is set: name a copy of the store.")
    return copies


def bucket_alone() -> Copies:
    """Raises SettingsError without BLOB_COPY_URL."""
    return Copies(None, BucketCopy(load(BlobPlaceSettings).blob_copy_url, load(ObjectStorageSettings)))


def bucket_copy() -> BucketCopy | None:
    """To fetch from and to remove from, where there is one; it is not spoken to yet. Raises SettingsError."""
    url = load(BlobCopySettings).blob_copy_url
    return BucketCopy(url, load(ObjectStorageSettings)) if url else None


def push_target() -> TieredBucket:
    """To push to. Raises SettingsError without BLOB_COPY_URL, and PlaceError when it does not answer."""
    return open_bucket(load(BlobPlaceSettings).blob_copy_url)
