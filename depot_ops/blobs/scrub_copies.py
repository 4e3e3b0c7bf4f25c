"""The copies that a scrub reads through: directories, and a bucket. Each knows how an object of it is repaired."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from depot_api.blobstore.bucket import BucketCopy
from depot_api.blobstore.copies import commit_copies, removals_held_off, stage_copy
from depot_api.blobstore.errors import BlobDamaged, BlobError, BlobMissing
from depot_api.blobstore.examine import StoredHasher, examine
from depot_api.blobstore.layout import Layout, StoredBlob
from depot_api.blobstore.store import BlobStore
from depot_ops.blobs.push import object_key, read_through
from depot_ops.blobs.scrub_state import STATE_NAME, ScrubState, parse_state, save_state
from depot_ops.places import Place, PlaceDamaged, PlaceError, PlaceMissing
from depot_ops.tiering.bucket import ObjectArchived, ObjectGone, TieredBucket

MISSING = "it is missing"
OTHER_FORM = "its content is right, its stored form is not the recorded one"


class CopyName(StrEnum):
    """Which copy of an object."""

    STORE = "store"
    MIRROR = "mirror"
    BUCKET = "bucket"


class ScrubbedCopy(ABC):
    """One copy, and what its scrubs came to. Used by several threads, but for `save`."""

    name: CopyName
    state: ScrubState
    save_seconds: ClassVar[float]
    """What is known is kept so often while a scrub runs."""

    @abstractmethod
    def difference(self, blob: StoredBlob) -> str | None:
        """Read the object through: what of it is not as recorded. Raises PlaceError when the copy cannot be asked."""

    @abstractmethod
    def repair(self, blob: StoredBlob) -> bool:
        """Whether another copy had it right, and this one has it now."""

    @abstractmethod
    def save(self) -> None:
        """Keep the state beside what it speaks of. Raises OSError and PlaceError."""


@dataclass
class DiskCopy(ScrubbedCopy):
    """The store or its mirror. What is replaced is kept in quarantine."""

    save_seconds = 2.0

    name: CopyName
    layout: Layout
    others: Sequence[Layout]
    bucket: BucketCopy | None
    primary: Layout
    staging: BlobStore
    state: ScrubState

    def difference(self, blob: StoredBlob) -> str | None:
        try:
            found = examine(self.layout, blob.sha256)
        except BlobMissing:
            return MISSING
        except BlobDamaged as error:
            return error.seen
        return None if found == blob else OTHER_FORM

    def repair(self, blob: StoredBlob) -> bool:
        return any(self._repair_from(other, blob) for other in self.others) or self._repair_from_bucket(blob)

    def save(self) -> None:
        save_state(self.layout.root, self.state)

    def _repair_from(self, other: Layout, blob: StoredBlob) -> bool:
        try:
            staged = stage_copy(other, blob.sha256, self.staging.temporary_file())
            if (staged.stored_bytes, staged.stored_crc32) != (blob.stored_bytes, blob.stored_crc32):
                self.staging.discard([staged])
                return False
            return bool(commit_copies([staged], other, self.layout, self.primary, quarantine=True))
        except (BlobError, OSError):
            return False  # the other copy is no better, or there is no room: it stays on the list of what is damaged

    def _repair_from_bucket(self, blob: StoredBlob) -> bool:
        try:
            return self.bucket is not None and self.staging.fetch(blob, self.bucket, self.primary.root)
        except (BlobError, OSError):
            return False  # nor has the bucket, or it is archived and was asked for: the next scrub tries again


@dataclass
class BucketObjects(ScrubbedCopy):
    """The objects in a bucket. They are replaced, never deleted first; versions of the bucket keep what lay there."""

    name = CopyName.BUCKET
    save_seconds = 60.0

    place: TieredBucket
    sources: Sequence[Layout]
    primary: Layout
    state: ScrubState
    archived: set[str] = field(default_factory=set)
    """What cannot be read without a restore: the archive vouches for it."""

    def save(self) -> None:
        content = self.state.model_dump_json(indent=1).encode()
        with TemporaryDirectory() as directory:
            path = Path(directory) / STATE_NAME
            path.write_bytes(content)
            self.place.replace(STATE_NAME, path, hashlib.sha256(content).hexdigest())

    def difference(self, blob: StoredBlob) -> str | None:
        key, hasher = object_key(blob.sha256), StoredHasher(blob.sha256)
        try:
            for chunk in self.place.chunks(key):
                hasher.feed(chunk)
            return None if hasher.finish() == blob else OTHER_FORM
        except BlobDamaged as error:
            return error.seen
        except ObjectGone:
            return MISSING
        except ObjectArchived:
            self.archived.add(blob.sha256)
            return None
        except PlaceError as error:
            self.place.size_bytes(key)  # a bucket that does not answer to this either is away; else it is the object
            return f"it cannot be read: {error}"

    def repair(self, blob: StoredBlob) -> bool:
        try:
            with removals_held_off(self.primary):
                return any(self._replace_from(source, blob) for source in self.sources)
        except (PlaceError, OSError):
            return False

    def _replace_from(self, source: Layout, blob: StoredBlob) -> bool:
        path = source.object_path(blob.sha256)
        try:
            found, stored_sha256 = read_through(path, blob.sha256)
            if found != blob:
                return False
            self.place.replace(object_key(blob.sha256), path, stored_sha256)
        except (BlobError, PlaceDamaged):
            return False
        return self.difference(blob) is None


def load_bucket_state(place: Place) -> ScrubState | None:
    """As `load_state`, of a bucket. Raises PlaceError."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / STATE_NAME
        try:
            place.get(STATE_NAME, path)
        except (PlaceMissing, PlaceDamaged):
            return None
        return parse_state(path.read_bytes())
