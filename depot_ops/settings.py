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


class ServiceSettings(BaseSettings):
    """Where the depot service answers."""

    depot_url: HttpUrl = Field(
        description="DEPOT_URL: the address of the depot API, for example http://127.0.0.1:8000."
    )


class ExecutorSettings(ServiceSettings):
    """Whose rights merge jobs are carried out with."""

    depot_token: SecretStr = Field(
        min_length=1, description="DEPOT_TOKEN: an API token of somebody who leads the projects, or of an admin."
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
