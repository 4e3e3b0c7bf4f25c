"""A bucket as a place: S3, or whatever speaks its protocol.

Content is sent with its SHA-256, which S3 compares on arrival, and on the condition that the key is free. Not every
server does either (rclone does neither): so the key is looked at first, and what the object should be stands in its
metadata, where the next reader compares it.
"""

import hashlib
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from depot_api.s3 import ObjectStorageSettings, connect
from depot_ops.places.place import (
    CHUNK_BYTES,
    Place,
    PlaceConflict,
    PlaceDamaged,
    PlaceError,
    PlaceMissing,
    Stored,
    write_whole,
)

if TYPE_CHECKING:
    from types_boto3_s3.type_defs import CompletedPartTypeDef

PART_BYTES = 16 << 20
MAX_PARTS = 10_000
PARALLEL_PARTS = 4
PRECONDITION_FAILED = 412
# Of a key. A bucket or an upload that is not there is an error; answers to HEAD have no body, and so only a number.
MISSING = {"NoSuchKey", "NotFound", "404"}
SHA256 = "sha256"


class ObjectStorage(Place):
    """Objects below a prefix of a bucket."""

    def __init__(self, bucket: str, prefix: str, settings: ObjectStorageSettings) -> None:
        self._bucket, self._prefix = bucket, f"{prefix}/" if prefix else ""
        self._sse = settings.encryption()
        try:
            self._s3 = connect(settings)
        except (BotoCoreError, ValueError) as error:
            raise PlaceError(f"{self} cannot be used with these settings: {error}") from error
        # Of a bucket that is not there, every key is missing: that must not pass for an empty place.
        with self._asked("the bucket", missing=PlaceError):
            self._s3.head_bucket(Bucket=bucket)

    def __str__(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}"

    def put(self, key: str, path: Path, sha256: str, *, is_free: bool = False) -> None:
        if not is_free and self._is_there(key, sha256):
            return
        try:
            self._send(key, path, sha256, {"IfNoneMatch": "*"})
        except _Taken:
            if not self._is_there(key, sha256):
                raise PlaceError(f"{self} refused {key} as taken, and has nothing there. Try again") from None

    def replace(self, key: str, path: Path, sha256: str) -> None:
        self._send(key, path, sha256, {})

    def _send(self, key: str, path: Path, sha256: str, condition: Any) -> None:
        try:
            size_bytes = path.stat().st_size
            with self._asked(key):
                if size_bytes <= PART_BYTES:
                    self._send_whole(key, path, sha256, condition)
                else:
                    self._send_parts(key, path, sha256, max(PART_BYTES, -(-size_bytes // MAX_PARTS)), condition)
        except OSError as error:
            raise PlaceError(f"{path} cannot be read: {error}") from error

    def size_bytes(self, key: str) -> int | None:
        try:
            with self._asked(key):
                return self._s3.head_object(Bucket=self._bucket, Key=self._prefix + key)["ContentLength"]
        except PlaceMissing:
            return None

    def _is_there(self, key: str, sha256: str) -> bool:
        try:
            with self._asked(key):
                head = self._s3.head_object(Bucket=self._bucket, Key=self._prefix + key)
        except PlaceMissing:
            return False
        if (_recorded(head["Metadata"]) or self.sha256(key)) != sha256:
            raise PlaceConflict(f"{self} has other content under {key}, and it is left. Look at both")
        return True

    def _send_whole(self, key: str, path: Path, sha256: str, condition: Any) -> None:
        content = path.read_bytes()
        digest = hashlib.sha256(content)
        _require(path, digest.hexdigest(), sha256)
        self._s3.put_object(
            Bucket=self._bucket,
            Key=self._prefix + key,
            Body=content,
            ChecksumSHA256=b64encode(digest.digest()).decode(),
            Metadata={SHA256: sha256},
            **condition,
            **self._sse,
        )

    def _send_parts(self, key: str, path: Path, sha256: str, part_bytes: int, condition: Any) -> None:
        where: Any = {"Bucket": self._bucket, "Key": self._prefix + key}
        upload = self._s3.create_multipart_upload(
            **where, Metadata={SHA256: sha256}, ChecksumAlgorithm="SHA256", **self._sse
        )["UploadId"]
        try:
            parts = self._send_each(where, upload, path, sha256, part_bytes)
            self._s3.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": parts}, **condition)
        except BaseException as error:
            try:
                self._s3.abort_multipart_upload(**where, UploadId=upload)
            except (BotoCoreError, ClientError) as left:  # what happened first is what has to be told
                error.add_note(f"the parts that were sent of {key} are left in the bucket: {left}")
            raise

    def _send_each(
        self, where: Any, upload: str, path: Path, sha256: str, part_bytes: int
    ) -> "list[CompletedPartTypeDef]":
        def send(number: int, content: bytes) -> "CompletedPartTypeDef":
            checksum = b64encode(hashlib.sha256(content).digest()).decode()
            sent = self._s3.upload_part(
                **where, UploadId=upload, PartNumber=number, Body=content, ChecksumSHA256=checksum
            )
            return {"PartNumber": number, "ETag": sent["ETag"], "ChecksumSHA256": checksum}

        digest, number = hashlib.sha256(), 0
        sent: list[Future[CompletedPartTypeDef]] = []
        with path.open("rb") as file, ThreadPoolExecutor(PARALLEL_PARTS) as pool:
            while content := file.read(part_bytes):
                digest.update(content)
                number += 1
                if number > PARALLEL_PARTS:
                    sent[number - PARALLEL_PARTS - 1].result()  # no more of the file in memory than that
                sent.append(pool.submit(send, number, content))
            _require(path, digest.hexdigest(), sha256)
            return [one.result() for one in sent]

    def get(self, key: str, path: Path) -> str:
        with self._asked(key):
            answer = self._s3.get_object(Bucket=self._bucket, Key=self._prefix + key)
            try:
                return write_whole(path, answer["Body"].iter_chunks(CHUNK_BYTES), _recorded(answer["Metadata"]))
            except OSError as error:
                raise PlaceError(f"{key} of {self} cannot be written to {path}: {error}") from error

    def sha256(self, key: str) -> str:
        digest = hashlib.sha256()
        with self._asked(key):
            for chunk in self._s3.get_object(Bucket=self._bucket, Key=self._prefix + key)["Body"].iter_chunks(
                CHUNK_BYTES
            ):
                digest.update(chunk)
        return digest.hexdigest()

    def list(self, prefix: str) -> Iterator[Stored]:
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix + prefix)
        with self._asked(prefix, missing=PlaceError):
            for page in pages:
                for one in page.get("Contents", ()):
                    yield Stored(one["Key"].removeprefix(self._prefix), one["Size"])

    def delete(self, key: str) -> None:
        with self._asked(key):
            self._s3.delete_object(Bucket=self._bucket, Key=self._prefix + key)

    def remove_debris(self) -> None:
        """A rule of the bucket aborts uploads that were never completed: not every server can list them."""

    @contextmanager
    def _asked(self, key: str, missing: type[PlaceError] = PlaceMissing) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            code = error.response.get("Error", {}).get("Code", "no code")
            if status == PRECONDITION_FAILED:
                raise _Taken(key) from error
            if code in MISSING:
                raise missing(f"{self} has nothing under {key}") from error
            raise PlaceError(f"{self} answered {code} (HTTP {status}) when it was asked for {key}") from error
        except BotoCoreError as error:
            raise PlaceError(f"{self} does not answer as it should when it is asked for {key}: {error}") from error


class _Taken(Exception):
    """Something came to lie under the key while it was looked at, or a repeated request came late."""


def _recorded(metadata: dict[str, str]) -> str | None:
    # Some servers capitalize the names.
    return next((value for name, value in metadata.items() if name.lower() == SHA256), None)


def _require(path: Path, actual: str, sha256: str) -> None:
    if actual != sha256:
        raise PlaceDamaged(f"{path} has the SHA-256 {actual}, not {sha256}: nothing was written")
