"""What can go wrong with content."""


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
