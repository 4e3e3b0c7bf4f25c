"""How buckets are spoken to, by the service and by the operations layer."""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, HttpUrl, SecretStr
from pydantic_settings import BaseSettings

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

CONNECTIONS = 32
# A server that is there takes a connection at once, however long its answers take.
CONNECT_SECONDS = 10.0


class ObjectStorageSettings(BaseSettings):
    """How buckets are spoken to. Without keys, boto3 finds them: its own variables, files or the instance's profile."""

    s3_endpoint_url: HttpUrl | None = Field(
        None, description="S3_ENDPOINT_URL: of an S3-compatible server; AWS when not set."
    )
    s3_region: str | None = Field(None, description="S3_REGION: the bucket's region.")
    s3_access_key_id: SecretStr | None = Field(None, description="S3_ACCESS_KEY_ID: who asks.")
    s3_secret_access_key: SecretStr | None = Field(None, description="S3_SECRET_ACCESS_KEY: its secret.")
    s3_encryption: Literal["AES256", "aws:kms"] | None = Field(
        None, description="S3_ENCRYPTION: encryption at rest that is asked for, AES256 or aws:kms."
    )
    s3_kms_key_id: str | None = Field(None, description="S3_KMS_KEY_ID: the key of aws:kms.")
    s3_timeout_seconds: float = Field(60, gt=0, description="S3_TIMEOUT_SECONDS: of one answer, before it is retried.")
    s3_attempts: int = Field(5, ge=1, le=20, description="S3_ATTEMPTS: of each request, with back-off and jitter.")

    def credentials(self) -> dict[str, Any]:
        """For boto3; empty when it shall look for them itself."""
        if self.s3_access_key_id is None or self.s3_secret_access_key is None:
            return {}
        return {
            "aws_access_key_id": self.s3_access_key_id.get_secret_value(),
            "aws_secret_access_key": self.s3_secret_access_key.get_secret_value(),
        }

    def encryption(self) -> dict[str, Any]:
        """Arguments of each upload."""
        asked = {"ServerSideEncryption": self.s3_encryption, "SSEKMSKeyId": self.s3_kms_key_id}
        return {name: value for name, value in asked.items() if value is not None}


def connect(settings: ObjectStorageSettings) -> "S3Client":
    """A client; nobody is asked yet. Raises botocore's BotoCoreError, and ValueError, for unusable settings."""
    import boto3  # noqa: PLC0415 - half a second and 20 MB, which only those pay who use it
    from botocore.config import Config  # noqa: PLC0415

    return boto3.session.Session().client(
        "s3",
        endpoint_url=str(settings.s3_endpoint_url) if settings.s3_endpoint_url else None,
        region_name=settings.s3_region,
        config=Config(
            s3={"addressing_style": "path" if settings.s3_endpoint_url else "auto"},
            retries={"mode": "standard", "total_max_attempts": settings.s3_attempts},
            connect_timeout=min(CONNECT_SECONDS, settings.s3_timeout_seconds),
            read_timeout=settings.s3_timeout_seconds,
            max_pool_connections=CONNECTIONS,
            # Ours is a SHA-256 that is known before; a trailing CRC would only say it again.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
        **settings.credentials(),
    )
