"""Every environment variable that the operations layer reads.

Nothing is read at import: definitions load with an empty environment, and what is missing is named when it is needed.
"""

from pathlib import Path
from typing import TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, HttpUrl, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings

Settings = TypeVar("Settings", bound=BaseSettings)


class SettingsError(Exception):
    """Environment variables are missing or unusable; the message has one line for each."""


class BackupSettings(BaseSettings):
    """Where backups lie."""

    backup_dir: Path = Field(description="BACKUP_DIR: the directory of the backups and their manifests.")


class DumpSettings(BackupSettings):
    """What a logical backup is taken from."""

    depot_dump_url: SecretStr = Field(
        description="DEPOT_DUMP_URL: the depot's database as depot_dump, the role that may read everything."
    )


class BaseBackupSettings(BackupSettings):
    """What base backups are taken from."""

    depot_replication_url: SecretStr = Field(
        description="DEPOT_REPLICATION_URL: the depot's server as a superuser, or a role with REPLICATION."
    )


class BlobSettings(BaseSettings):
    """Where the copies of the blob store lie, and how fast work on them may be."""

    asset_storage_path: Path = Field(
        Path("/var/lib/asset-depot"), description="ASSET_STORAGE_PATH: the root of the blob store."
    )
    asset_storage_replica_path: Path = Field(
        description="ASSET_STORAGE_REPLICA_PATH: the root of the blob store's mirror, on another disk."
    )
    blob_workers: int = Field(
        4, ge=1, le=64, description="BLOB_WORKERS: objects that are copied or read through at the same time."
    )
    mirror_bytes_per_second: int | None = Field(
        None, ge=1, description="MIRROR_BYTES_PER_SECOND: the most that mirroring copies; no limit when not set."
    )
    mirror_max_lag_seconds: float = Field(
        300.0, gt=0, description="MIRROR_MAX_LAG_SECONDS: an object that waits longer to be mirrored is an alarm."
    )
    scrub_period_days: int = Field(
        30, ge=1, le=365, description="SCRUB_PERIOD_DAYS: in which every object of every copy is read through once."
    )


class CatalogueSettings(BaseSettings):
    """The depot's catalogue, to be read."""

    depot_dump_url: SecretStr = Field(
        description="DEPOT_DUMP_URL: the depot's database as depot_dump, the role that may read everything."
    )


class CollectionSettings(BackupSettings):
    """What decides when content that nothing refers to may go."""

    database_owner_url: SecretStr = Field(description="DATABASE_OWNER_URL: the depot's database as depot_owner.")
    collect_grace_hours: int = Field(
        168, ge=1, description="COLLECT_GRACE_HOURS: time between the mark and the deletion of unreferenced content."
    )


class ServiceSettings(BaseSettings):
    """Where the depot service answers."""

    depot_url: HttpUrl = Field(
        description="DEPOT_URL: the address of the depot API, for example http://127.0.0.1:8000."
    )


class OrchestratorSettings(BaseSettings):
    """How the nightly work is planned, and how long its history is kept."""

    maintenance_timezone: str = Field(
        "UTC", description="MAINTENANCE_TIMEZONE: the time zone of 01:00, for example Europe/London."
    )
    dagster_keep_runs_days: int = Field(
        90, ge=1, description="DAGSTER_KEEP_RUNS_DAYS: finished runs, events and ticks older than this are deleted."
    )

    @field_validator("maintenance_timezone")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"{name!r} is not a time zone; use a name such as UTC or Europe/London") from error
        return name


def load(settings: type[Settings]) -> Settings:
    """Read `settings` from the environment. Raises SettingsError, which names every variable that is wrong."""
    try:
        return settings()
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc'])).upper()}: {_reason(e['type'], e['msg'])}" for e in error.errors()]
        raise SettingsError("\n".join(lines)) from None


def _reason(kind: str, message: str) -> str:
    return "not set in the environment" if kind == "missing" else message
