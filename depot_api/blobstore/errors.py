"""What can go wrong with content."""

from collections.abc import Sequence


class BlobError(Exception):
    """Base of the blob store's errors."""


class HashMismatch(BlobError):
    def __init__(self, expected: str, actual: str) -> None:
        super().__init__(f"the bytes have the SHA-256 {actual}, not {expected}")
        self.expected = expected
        self.actual = actual


class StorageFull(BlobError):
    """The file system, or a quota on it, has no room."""


class BlobMissing(BlobError):
    def __init__(self, sha256: str) -> None:
        super().__init__(f"object {sha256} is not in the store")
        self.sha256 = sha256


class BlobDamaged(BlobError):
    def __init__(self, sha256: str, seen: str) -> None:
        super().__init__(f"object {sha256} is damaged: {seen}")
        self.sha256 = sha256
        self.seen = seen


class BlobUnreachable(BlobError):
    """A copy that may have the object cannot be asked."""

    def __init__(self, sha256: str, seen: str) -> None:
        super().__init__(f"object {sha256} cannot be fetched: {seen}")
        self.sha256 = sha256


class BlobArchived(BlobError):
    """An archive has the objects, and was asked to restore them. That takes hours."""

    def __init__(self, hashes: Sequence[str]) -> None:
        super().__init__(f"{len(hashes)} objects are being restored from an archive, first {hashes[0]}")
        self.hashes = hashes
