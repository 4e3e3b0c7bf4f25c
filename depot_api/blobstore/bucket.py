"""The copy of the store in a bucket, `<prefix>/objects/…` as on disk: for what no copy on disk has."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from depot_api.blobstore.durability import full_disk_told
from depot_api.blobstore.errors import BlobArchived, BlobMissing, BlobUnreachable
from depot_api.blobstore.examine import StoredHasher
from depot_api.blobstore.layout import Layout
from depot_api.blobstore.reader import CHUNK_BYTES
from depot_api.blobstore.writer import StagedBlob
from depot_api.s3 import ObjectStorageSettings, connect

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

RESTORED_DAYS = 7
MOST_ATTEMPTS = 2
MOST_DELETED = 1000
_ARCHIVED = {"InvalidObjectState", "ObjectNotInActiveTierError"}
_MISSING = {"NoSuchKey", "404"}
# Its objects stay up, once they are, so it takes no number of days.
_BY_ITSELF = "INTELLIGENT_TIERING"


def for_waiting_readers(settings: ObjectStorageSettings) -> ObjectStorageSettings:
    """Somebody waits, and holds a thread that others need: whoever asks again later has the same chance."""
    return settings.model_copy(update={"s3_attempts": min(settings.s3_attempts, MOST_ATTEMPTS)})


class BucketCopy:
    """Thread-safe. The bucket is spoken to when an object is needed, and not before."""

    def __init__(self, url: str, settings: ObjectStorageSettings) -> None:
        """`url` is s3://bucket/prefix."""
        parts = urlsplit(url)
        self._bucket = parts.netloc
        self._settings = settings
        self._layout = Layout(Path(unquote(parts.path).strip("/")))

    @cached_property
    def _s3(self) -> "S3Client":
        return connect(self._settings)

    def stage(self, sha256: str, temporary: Path) -> StagedBlob:
        """Fetch an object's stored form to `temporary`, hashing what arrives.

        Raises BlobMissing, BlobDamaged, BlobUnreachable, StorageFull, and BlobArchived when an archive has it and was
        asked to restore it. Then nothing is left.
        """
        hasher = StoredHasher(sha256)
        try:
            with full_disk_told(), temporary.open("xb", buffering=0) as file:
                temporary.chmod(0o640)
                for chunk in self._chunks(sha256):
                    hasher.feed(chunk)
                    written = file.write(chunk)
                    while written < len(chunk):  # as on the last free block of a disk
                        written += file.write(chunk[written:])
            blob = hasher.finish()
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return StagedBlob(temporary, sha256, blob.size_bytes, blob.stored_bytes, blob.stored_crc32)

    def remove(self, hashes: Sequence[str]) -> None:
        """Take objects away for good. Gone already is fine. Raises BlobUnreachable."""
        for start in range(0, len(hashes), MOST_DELETED):
            some = hashes[start : start + MOST_DELETED]
            keys: Any = [{"Key": self._where(sha256)["Key"]} for sha256 in some]
            with self._asked(some[0]):
                answer = self._s3.delete_objects(Bucket=self._bucket, Delete={"Objects": keys, "Quiet": True})
            if errors := answer.get("Errors"):
                seen = f"the bucket {self._bucket} did not delete {len(errors)} objects: {errors[0].get('Code')}"
                raise BlobUnreachable(some[0], seen)

    def has(self, sha256: str) -> bool:
        """Whether it is still there. Raises BlobUnreachable."""
        try:
            with self._asked(sha256):
                self._s3.head_object(**self._where(sha256))
        except BlobMissing:
            return False
        return True

    def _chunks(self, sha256: str) -> Iterator[bytes]:
        with self._asked(sha256):
            try:
                answer = self._s3.get_object(**self._where(sha256))
            except ClientError as error:
                if _code(error) not in _ARCHIVED:
                    raise
                self._restore(sha256)
                raise BlobArchived([sha256]) from error
            yield from answer["Body"].iter_chunks(CHUNK_BYTES)

    def _restore(self, sha256: str) -> None:
        """Ask the archive for it, unless somebody has."""
        head = self._s3.head_object(**self._where(sha256))
        if "Restore" in head:
            return
        request: Any = {"GlacierJobParameters": {"Tier": "Standard"}}
        if head.get("StorageClass") != _BY_ITSELF:
            request["Days"] = RESTORED_DAYS
        try:
            self._s3.restore_object(**self._where(sha256), RestoreRequest=request)
        except ClientError as error:
            if _code(error) != "RestoreAlreadyInProgress":
                raise

    def _where(self, sha256: str) -> Any:
        return {"Bucket": self._bucket, "Key": str(self._layout.object_path(sha256))}

    @contextmanager
    def _asked(self, sha256: str) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            if _code(error) in _MISSING:
                raise BlobMissing(sha256) from error
            raise BlobUnreachable(sha256, f"the bucket {self._bucket} answered {_code(error)}") from error
        except (BotoCoreError, ValueError) as error:
            raise BlobUnreachable(sha256, f"the bucket {self._bucket} does not answer: {error}") from error


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "no code"))
