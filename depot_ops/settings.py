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


class ObjectiveSettings(BackupSettings):
    """What is promised of a recovery, and judged by the drills in BACKUP_DIR."""

    rto_objective_seconds: float = Field(
        3600, gt=0, description="RTO_OBJECTIVE_SECONDS: after a disaster users can work again within this."
    )
    rpo_objective_seconds: float = Field(
        300, ge=0, description="RPO_OBJECTIVE_SECONDS: a disaster loses the commits of no more than this."
    )
    drill_max_age_seconds: float = Field(
        8 * 86400, gt=0, description="DRILL_MAX_AGE_SECONDS: the newest drill that passed is no older than this."
    )


class DrillSettings(BaseBackupSettings, ObjectiveSettings):
    """What drills restore, and where."""

    depot_ops_url: SecretStr = Field(
        description="DEPOT_OPS_URL: the depot's database as depot_ops, the role that writes canaries."
    )
    wal_archive_dir: Path = Field(description="WAL_ARCHIVE_DIR: the archive of the log.")
    drill_dir: Path = Field(
        description="DRILL_DIR: where copies are restored to; the account that runs PostgreSQL has to reach it."
    )
    asset_storage_path: Path = Field(description="ASSET_STORAGE_PATH: the root of the blob store.")
    asset_storage_replica_path: Path | None = Field(
        None, description="ASSET_STORAGE_REPLICA_PATH: the root of the blob store's mirror."
    )
    drill_blob_shards: int = Field(
        1, ge=1, le=256, description="DRILL_BLOB_SHARDS: so many drills re-hash all content, each a part; 1 is all."
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
