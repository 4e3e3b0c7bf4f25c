"""Where things lie below the store's root, and what is recorded of an object."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """An object as it was verified when written. `stored` is the gzip file as it lies."""

    sha256: str
    size_bytes: int
    stored_bytes: int
    stored_crc32: int
    is_evicted: bool = field(default=False, compare=False)
    """Whether it may be away from the store's own disk."""


@dataclass(frozen=True, slots=True)
class Layout:
    """`objects/<first two hex digits>/<sha256>.bin.gz`; `refs/`; `tmp/<writer's session>/` on the same file system."""

    root: Path

    @property
    def temporary(self) -> Path:
        return self.root / "tmp"

    @property
    def objects(self) -> Path:
        return self.root / "objects"

    @property
    def refs(self) -> Path:
        return self.root / "refs"

    @property
    def quarantine(self) -> Path:
        """`quarantine/<sha256>/`: what was found damaged under that name, kept for diagnosis."""
        return self.root / "quarantine"

    def prefixes(self) -> list[Path]:
        return [self.objects / f"{prefix:02x}" for prefix in range(256)]

    def object_path(self, sha256: str) -> Path:
        return self.objects / sha256[:2] / f"{sha256}.bin.gz"
