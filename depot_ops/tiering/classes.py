"""Storage classes of S3, from the warmest to the coldest."""

from enum import StrEnum

# Smaller objects cost more in a colder class than they save: S3 bills them there as if they had this size.
SMALLEST_MOVED_BYTES = 128 << 10


class StorageClass(StrEnum):
    """By S3's names. The order is the warmth: what is read at once and without a fee comes first."""

    STANDARD = "STANDARD"
    INTELLIGENT_TIERING = "INTELLIGENT_TIERING"
    STANDARD_IA = "STANDARD_IA"
    GLACIER_IR = "GLACIER_IR"
    GLACIER = "GLACIER"
    DEEP_ARCHIVE = "DEEP_ARCHIVE"

    @property
    def coldness(self) -> int:
        return _COLDNESS[self]

    @property
    def is_archive(self) -> bool:
        """Whether reading takes hours, after a request to restore."""
        return self in (StorageClass.GLACIER, StorageClass.DEEP_ARCHIVE)


_COLDNESS = {storage_class: place for place, storage_class in enumerate(StorageClass)}
