"""The bucket where BLOB_COPY_URL keeps every object, with the storage class of each."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote, urlsplit

from botocore.exceptions import ClientError

from depot_ops.places import PlaceError
from depot_ops.places.object_storage import PARALLEL_PARTS, ObjectStorage
from depot_ops.places.place import CHUNK_BYTES
from depot_ops.settings import ObjectStorageSettings, load
from depot_ops.tiering.classes import StorageClass

if TYPE_CHECKING:
    from types_boto3_s3.type_defs import (
        CompletedPartTypeDef,
        IntelligentTieringConfigurationTypeDef,
        LifecycleRuleOutputTypeDef,
        LifecycleRuleTypeDef,
    )

OBJECTS = "objects/"
# The most that S3 copies in one request; what is larger goes in parts, several at once.
COPY_BYTES = 5 << 30
COPY_PART_BYTES = 512 << 20
MAX_PARTS = 10_000
_OBJECT_KEY = re.compile(r"objects/([0-9a-f]{2})/(\1[0-9a-f]{62})\.bin\.gz")
_ARCHIVED = {"InvalidObjectState", "ObjectNotInActiveTierError"}
# Answers to HEAD have no body, and so only a number.
_GONE = {"NoSuchKey", "PreconditionFailed", "404", "412"}
# The last is what servers say that have no such feature.
_NOT_CONFIGURED = {"NoSuchConfiguration", "NoSuchLifecycleConfiguration", "NotImplemented"}


class ObjectGone(PlaceError):
    """The object was removed or replaced since it was listed."""


class ObjectArchived(PlaceError):
    """The object has to be restored before it can be read or moved."""


class RestoreState(StrEnum):
    """How far an archived object is on its way back."""

    ARCHIVED = "archived"
    RESTORING = "restoring"
    READABLE = "readable"


@dataclass(frozen=True, slots=True)
class Listed:
    """An object of the store as the bucket lists it. `storage_class` may be one that we do not know."""

    sha256: str
    key: str
    size_bytes: int
    storage_class: str
    etag: str


class TieredBucket(ObjectStorage):
    """Objects of the store below a prefix of a bucket. All methods may be called by several threads."""

    def __init__(self, bucket: str, prefix: str, settings: ObjectStorageSettings, copy_bytes: int = COPY_BYTES) -> None:
        super().__init__(bucket, prefix, settings)
        self._copy_bytes = copy_bytes

    @property
    def objects_prefix(self) -> str:
        """What the keys of all objects of the store begin with."""
        return self._prefix + OBJECTS

    def list_objects(self) -> Iterator[Listed]:
        """In the order of hashes. What else lies there is passed over. Raises PlaceError."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self.objects_prefix)
        with self._asked(OBJECTS, missing=PlaceError):
            for page in pages:
                for one in page.get("Contents", ()):
                    key = one["Key"].removeprefix(self._prefix)
                    if found := _OBJECT_KEY.fullmatch(key):
                        storage_class = one.get("StorageClass", StorageClass.STANDARD)
                        yield Listed(found[2], key, one["Size"], storage_class, one["ETag"])

    def chunks(self, key: str) -> Iterator[bytes]:
        """An object's bytes, as they can be read now. Raises ObjectGone, ObjectArchived and PlaceError."""
        with self._asked_of(key):
            yield from self._s3.get_object(**self._where(key))["Body"].iter_chunks(CHUNK_BYTES)

    # Moving ---------------------------------------------------------------------------------------------------------

    def move(self, listed: Listed, into: StorageClass) -> None:
        """Copy the object onto itself in another class, on the server, with its metadata.

        On the condition that it still is what was listed. Raises ObjectGone, ObjectArchived and PlaceError.
        """
        with self._asked_of(listed.key):
            if listed.size_bytes > self._copy_bytes:
                self._move_parts(listed, into)
                return
            self._s3.copy_object(
                **self._where(listed.key),
                **self._source(listed),
                IfMatch=listed.etag,
                StorageClass=into.value,
                MetadataDirective="COPY",
                **self._sse,
            )

    def _move_parts(self, listed: Listed, into: StorageClass) -> None:
        where = self._where(listed.key)
        metadata = self._s3.head_object(**where, IfMatch=listed.etag)["Metadata"]
        upload = self._s3.create_multipart_upload(**where, Metadata=metadata, StorageClass=into.value, **self._sse)[
            "UploadId"
        ]
        try:
            with ThreadPoolExecutor(PARALLEL_PARTS) as pool:
                parts = list(pool.map(lambda part: self._move_part(listed, upload, *part), self._parts(listed)))
            self._s3.complete_multipart_upload(
                **where, UploadId=upload, MultipartUpload={"Parts": parts}, IfMatch=listed.etag
            )
        except BaseException:
            self._s3.abort_multipart_upload(**where, UploadId=upload)
            raise

    def _parts(self, listed: Listed) -> Iterator[tuple[int, int, int]]:
        """Number, first and last byte of each."""
        part_bytes = max(min(self._copy_bytes, COPY_PART_BYTES), -(-listed.size_bytes // MAX_PARTS))
        for number, start in enumerate(range(0, listed.size_bytes, part_bytes), 1):
            yield number, start, min(start + part_bytes, listed.size_bytes) - 1

    def _move_part(self, listed: Listed, upload: str, number: int, first: int, last: int) -> "CompletedPartTypeDef":
        copied = self._s3.upload_part_copy(
            **self._where(listed.key),
            **self._source(listed),
            CopySourceRange=f"bytes={first}-{last}",
            UploadId=upload,
            PartNumber=number,
        )
        return {"PartNumber": number, "ETag": copied["CopyPartResult"]["ETag"]}

    def restore_state(self, key: str) -> RestoreState:
        """Of an object in an archive. Raises ObjectGone and PlaceError."""
        with self._asked_of(key):
            restore = self._s3.head_object(**self._where(key)).get("Restore", "")
        if 'ongoing-request="true"' in restore:
            return RestoreState.RESTORING
        return RestoreState.READABLE if 'ongoing-request="false"' in restore else RestoreState.ARCHIVED

    def request_restore(self, listed: Listed, days: int) -> None:
        """Ask for a copy of the archived object that can be read for so many days; hours later it is there."""
        request: Any = {"GlacierJobParameters": {"Tier": "Standard"}}
        if listed.storage_class != StorageClass.INTELLIGENT_TIERING:  # whose objects stay up, once they are
            request["Days"] = days
        with self._asked_of(listed.key):
            try:
                self._s3.restore_object(**self._where(listed.key), RestoreRequest=request)
            except ClientError as error:
                if _code(error) != "RestoreAlreadyInProgress":
                    raise

    def _where(self, key: str) -> Any:
        return {"Bucket": self._bucket, "Key": self._prefix + key}

    def _source(self, listed: Listed) -> Any:
        return {"CopySource": self._where(listed.key), "CopySourceIfMatch": listed.etag}

    @contextmanager
    def _asked_of(self, key: str) -> Iterator[None]:
        """As `_asked`, of an object that was there a moment ago."""
        with self._asked(key):
            try:
                yield
            except ClientError as error:
                if _code(error) in _ARCHIVED:
                    raise ObjectArchived(f"{self}{key} is archived and has to be restored first") from error
                if _code(error) in _GONE:
                    raise ObjectGone(f"{self}{key} was removed or replaced since it was listed") from error
                raise

    # Configuration --------------------------------------------------------------------------------------------------

    def lifecycle_rules(self) -> "list[LifecycleRuleOutputTypeDef]":
        """Of the whole bucket, whoever made them."""
        with self._asked("the bucket's lifecycle", missing=PlaceError):
            try:
                return self._s3.get_bucket_lifecycle_configuration(Bucket=self._bucket).get("Rules", [])
            except ClientError as error:
                if _code(error) in _NOT_CONFIGURED:
                    return []
                raise

    def put_lifecycle_rules(self, rules: "list[LifecycleRuleTypeDef]") -> None:
        """In place of all rules that the bucket has."""
        with self._asked("the bucket's lifecycle", missing=PlaceError):
            if rules:
                self._s3.put_bucket_lifecycle_configuration(
                    Bucket=self._bucket, LifecycleConfiguration={"Rules": rules}
                )
            else:
                self._s3.delete_bucket_lifecycle(Bucket=self._bucket)

    def archive_tiers(self, name: str) -> "IntelligentTieringConfigurationTypeDef | None":
        """The Intelligent-Tiering configuration of this name, also None from a server that has no such thing."""
        with self._asked("its Intelligent-Tiering configuration", missing=PlaceError):
            try:
                answer = self._s3.get_bucket_intelligent_tiering_configuration(Bucket=self._bucket, Id=name)
            except ClientError as error:
                if _code(error) in _NOT_CONFIGURED:
                    return None
                raise
        # What is read can be written; the two types differ in lists and sequences only. A server that does not know
        # the question answers another one: then there is no name in it.
        found = cast("IntelligentTieringConfigurationTypeDef", answer.get("IntelligentTieringConfiguration", {}))
        return found if found.get("Id") == name else None

    def put_archive_tiers(self, configuration: "IntelligentTieringConfigurationTypeDef") -> None:
        with self._asked("its Intelligent-Tiering configuration", missing=PlaceError):
            self._s3.put_bucket_intelligent_tiering_configuration(
                Bucket=self._bucket, Id=configuration["Id"], IntelligentTieringConfiguration=configuration
            )

    def delete_archive_tiers(self, name: str) -> None:
        with self._asked("its Intelligent-Tiering configuration", missing=PlaceError):
            self._s3.delete_bucket_intelligent_tiering_configuration(Bucket=self._bucket, Id=name)


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def open_bucket(url: str) -> TieredBucket:
    """The bucket that BLOB_COPY_URL names. Raises PlaceError, and SettingsError for unusable settings."""
    parts = urlsplit(url)
    if parts.scheme != "s3" or not parts.netloc or parts.username:
        raise PlaceError(f"{url!r} has no storage classes. Tiering needs BLOB_COPY_URL=s3://bucket/prefix")
    return TieredBucket(parts.netloc, unquote(parts.path).strip("/"), load(ObjectStorageSettings))
