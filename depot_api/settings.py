"""Every environment variable that the service reads."""

from functools import cached_property
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Read from the environment once, at start; a missing or unusable one stops the start with its name."""

    model_config = SettingsConfigDict(env_prefix="", extra="ignore")

    database_url: SecretStr = Field(description="PostgreSQL URL of the role depot_service.")
    db_pool_min: int = Field(default=1, ge=0, description="Database connections that a worker keeps open.")
    db_pool_max: int = Field(default=10, ge=1, description="Database connections that a worker opens at most.")
    commit_timeout_seconds: float = Field(
        default=10.0, gt=0, description="Time after which a commit that no standby confirms is answered with 503."
    )
    # RFC 7518 section 3.2: an HMAC-SHA-256 key has at least 256 bits.
    jwt_secret: SecretStr = Field(min_length=32, description="Key that signs access tokens, 32 characters or more.")
    jwt_expiration_minutes: int = Field(default=60, ge=1, description="Life of an access token in minutes.")
    asset_storage_path: Path = Field(default=Path("/var/lib/asset-depot"), description="Root of the blob store.")
    asset_storage_replica_path: Path | None = Field(
        default=None, description="Root of the blob store's mirror, which the operations layer keeps."
    )
    blob_copy_url: str | None = Field(
        default=None,
        pattern=r"^(s3://[^/@]+(/.*)?)?$",
        description="Object storage that keeps every object, which the operations layer fills.",
    )
    restore_retry_seconds: int = Field(
        default=300, ge=1, description="When to ask again for content that an archive restores."
    )
    rate_limit_requests_per_second: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="Requests of one token, or without one of one address, that a worker takes; 0 takes all.",
    )
    storage_min_free_bytes: int = Field(
        default=64 << 20, ge=0, description="Free space in the store below which /health answers 503."
    )
    webhook_allow_private: bool = Field(
        default=False, description="Whether webhooks may go to loopback and private addresses."
    )
    webhook_max_attempts: int = Field(default=12, ge=1, description="Attempts after which a delivery is given up.")
    webhook_retry_seconds: float = Field(
        default=1.0, gt=0, le=3600, description="Wait after a delivery's first failure; doubles up to an hour."
    )

    obliterate_grace_seconds: int = Field(
        default=86_400, ge=0, description="Time in which an obliteration can be taken back, before bytes are removed."
    )

    @cached_property
    def database_conninfo(self) -> str:
        return self.database_url.get_secret_value()
