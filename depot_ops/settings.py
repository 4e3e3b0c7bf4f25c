"""Every environment variable that the operations layer reads.

Nothing is read at import: definitions load with an empty environment, and what is missing is named when it is needed.
"""

from enum import StrEnum
from pathlib import Path
from typing import Self, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, HttpUrl, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings

from depot_api.s3 import ObjectStorageSettings as ObjectStorageSettings  # noqa: PLC0414 - one of ours too
from depot_ops.postgres.dump_record import DumpFormat

Settings = TypeVar("Settings", bound=BaseSettings)


class SettingsError(Exception):
    """Environment variables are missing or unusable; the message has one line for each."""


class BackupSettings(BaseSettings):
    """Where backups lie."""

    backup_dir: Path = Field(description="BACKUP_DIR: the directory of the backups and their manifests.")


class DumpChoiceSettings(BaseSettings):
    """Which databases are dumped beside the depot's, and how."""

    backup_databases: str = Field(
        "", description="BACKUP_DATABASES: further databases of the depot's server, separated by commas."
    )
    backup_database_urls: SecretStr = Field(
        SecretStr(""), description="BACKUP_DATABASE_URLS: databases of other servers, separated by blanks."
    )
    backup_format: DumpFormat = Field(DumpFormat.CUSTOM, description="BACKUP_FORMAT: custom or directory.")
    backup_jobs: int = Field(
        2, ge=1, le=64, description="BACKUP_JOBS: tables that are dumped at once, in the format directory."
    )
    backup_role_passwords: bool = Field(
        False, description="BACKUP_ROLE_PASSWORDS: keep the hashes of passwords too; only a superuser can read them."
    )


class DumpSettings(BackupSettings, DumpChoiceSettings):
    """What logical backups are taken from."""

    depot_dump_url: SecretStr = Field(
        description="DEPOT_DUMP_URL: the depot's database as depot_dump, the role that may read everything."
    )


class BaseBackupSettings(BackupSettings):
    """What base backups are taken from."""

    depot_replication_url: SecretStr = Field(
        description="DEPOT_REPLICATION_URL: the depot's server as a superuser, or a role with REPLICATION."
    )
    base_backup_url: SecretStr | None = Field(
        None, description="BASE_BACKUP_URL: a standby that base backups are taken from, instead of the primary."
    )
    base_backup_max_rate: str | None = Field(
        None, pattern=r"^\d+[kM]?$", description="BASE_BACKUP_MAX_RATE: the most that is read a second, 32k to 1024M."
    )

    @property
    def source_url(self) -> str:
        """Where base backups are taken from."""
        return (self.base_backup_url or self.depot_replication_url).get_secret_value()


class BaseBackupAgeSettings(BackupSettings):
    """How old the newest base backup may be."""

    base_backup_max_age_hours: float = Field(
        26, gt=0, description="BASE_BACKUP_MAX_AGE_HOURS: an older newest base backup is an alarm."
    )


class WalSettings(BaseBackupSettings):
    """What the archive of the log is judged by."""

    wal_archive_dir: Path = Field(description="WAL_ARCHIVE_DIR: the archive of the log.")
    wal_stream_dir: Path | None = Field(
        None, description="WAL_STREAM_DIR: where `depot-ops wal receive` writes; not set when nobody streams."
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


class DrillSettings(WalSettings, ObjectiveSettings):
    """What drills restore, and where."""

    depot_ops_url: SecretStr = Field(
        description="DEPOT_OPS_URL: the depot's database as depot_ops, the role that writes canaries."
    )
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


class MirrorSettings(BaseSettings):
    """Whether the blob store has a mirror."""

    asset_storage_replica_path: Path | None = Field(
        None, description="ASSET_STORAGE_REPLICA_PATH: the root of the blob store's mirror."
    )


class BlobCopySettings(BaseSettings):
    """Whether the store is kept once more in a bucket."""

    blob_copy_url: str | None = Field(
        None, min_length=1, description="BLOB_COPY_URL: object storage that keeps every object, s3://bucket/prefix."
    )


class PushSettings(BaseSettings):
    """Where the blob store lies, and how fast work on it and its copies may be."""

    asset_storage_path: Path = Field(
        Path("/var/lib/asset-depot"), description="ASSET_STORAGE_PATH: the root of the blob store."
    )
    blob_workers: int = Field(
        4, ge=1, le=64, description="BLOB_WORKERS: objects that are copied or read through at the same time."
    )
    push_bytes_per_second: int | None = Field(
        None, ge=1, description="PUSH_BYTES_PER_SECOND: the most that pushing to a bucket sends; no limit when not set."
    )
    mirror_max_lag_seconds: float = Field(
        300.0, gt=0, description="MIRROR_MAX_LAG_SECONDS: an object that waits longer to be copied is an alarm."
    )


class BlobSettings(PushSettings):
    """Where the mirror of the blob store lies, and how it is kept."""

    asset_storage_replica_path: Path = Field(
        description="ASSET_STORAGE_REPLICA_PATH: the root of the blob store's mirror, on another disk."
    )
    mirror_bytes_per_second: int | None = Field(
        None, ge=1, description="MIRROR_BYTES_PER_SECOND: the most that mirroring copies; no limit when not set."
    )


class ScrubSettings(PushSettings, MirrorSettings, BlobCopySettings):
    """Which copies of the blob store there are, and how often each is read through."""

    scrub_period_days: int = Field(
        30, ge=1, le=365, description="SCRUB_PERIOD_DAYS: in which every object on every disk is read through once."
    )
    scrub_bucket_period_days: int = Field(
        365,
        ge=0,
        le=365,
        description="SCRUB_BUCKET_PERIOD_DAYS: in which every object in the bucket is read through once; 0 is never.",
    )

    @property
    def reads_bucket(self) -> bool:
        """Whether the bucket is read through too: object storage bills for it."""
        return self.blob_copy_url is not None and self.scrub_bucket_period_days > 0


class CatalogueSettings(BaseSettings):
    """The depot's catalogue, to be read."""

    depot_dump_url: SecretStr = Field(
        description="DEPOT_DUMP_URL: the depot's database as depot_dump, the role that may read everything."
    )


class SecondPlaceSettings(BaseSettings):
    """Whether there is a second place."""

    backup_copy_url: str | None = Field(None, description="BACKUP_COPY_URL: where the copy of the backups is, if any.")


class CollectionSettings(BackupSettings, SecondPlaceSettings):
    """What decides when content that nothing refers to may go."""

    database_owner_url: SecretStr = Field(description="DATABASE_OWNER_URL: the depot's database as depot_owner.")
    collect_grace_hours: int = Field(
        168, ge=24, description="COLLECT_GRACE_HOURS: time between the mark and the deletion of unreferenced content."
    )
    collect_delete: bool = Field(
        False, description="COLLECT_DELETE: the scheduled collection removes what is due; else it only tells."
    )


class BlobPlaceSettings(BaseSettings):
    """Where every object of the store is kept once more."""

    blob_copy_url: str = Field(
        min_length=1, description="BLOB_COPY_URL: object storage that keeps every object, s3://bucket/prefix."
    )


class TierMode(StrEnum):
    """Who moves objects to colder storage."""

    LIFECYCLE = "lifecycle"
    EXPLICIT = "explicit"


class TierChoiceSettings(BaseSettings):
    """Whether there is a tiering policy, and who moves."""

    tier_policy_path: Path | None = Field(None, description="TIER_POLICY_PATH: the tiering policy, a YAML document.")
    tier_mode: TierMode = Field(TierMode.EXPLICIT, description="TIER_MODE: lifecycle or explicit.")
    tier_evict: bool = Field(
        False, description="TIER_EVICT: the scheduled run lets cold content leave the store's disk, before it moves."
    )

    @property
    def is_explicit(self) -> bool:
        return self.tier_policy_path is not None and self.tier_mode is TierMode.EXPLICIT

    @property
    def runs_nightly(self) -> bool:
        """Whether there is something to do for us: in lifecycle mode S3 moves, and only the disk is ours."""
        return self.is_explicit or (self.tier_policy_path is not None and self.tier_evict)


class TieringSettings(BaseSettings):
    """By which policy objects of the bucket go to colder storage, and who moves them."""

    asset_storage_path: Path = Field(
        Path("/var/lib/asset-depot"), description="ASSET_STORAGE_PATH: the root of the blob store."
    )
    tier_policy_path: Path = Field(description="TIER_POLICY_PATH: the tiering policy, a YAML document.")
    tier_mode: TierMode = Field(
        TierMode.EXPLICIT, description="TIER_MODE: lifecycle, by rules of the bucket, or explicit, by depot-ops."
    )
    tier_prices_path: Path | None = Field(
        None, description="TIER_PRICES_PATH: a YAML table of prices; example numbers when not set."
    )
    tier_workers: int = Field(8, ge=1, le=64, description="TIER_WORKERS: objects that are moved at the same time.")
    tier_restore_days: int = Field(
        7, ge=1, le=365, description="TIER_RESTORE_DAYS: for which what is restored from an archive can be read."
    )


class EvictionSettings(BlobSettings, BlobPlaceSettings):
    """What lets cold content leave the store's own disk."""

    database_owner_url: SecretStr = Field(description="DATABASE_OWNER_URL: the depot's database as depot_owner.")
    tier_cache_days: float = Field(
        7, ge=0, description="TIER_CACHE_DAYS: what came to the store's disk more recently stays there."
    )


class ServiceSettings(BaseSettings):
    """Where the depot service answers."""

    depot_url: HttpUrl = Field(
        description="DEPOT_URL: the address of the depot API, for example http://127.0.0.1:8000."
    )


class OffsiteSettings(SecondPlaceSettings):
    """What is left after the loss of this machine, where it is set up."""

    wal_stream_dir: Path | None = Field(
        None, description="WAL_STREAM_DIR: where `depot-ops wal receive` writes; not set when nobody streams."
    )
    backup_copy_max_age_hours: float = Field(
        3, gt=0, description="BACKUP_COPY_MAX_AGE_HOURS: what waits longer to be copied is an alarm."
    )


class ReportSettings(BackupSettings, OffsiteSettings):
    """What the nightly report looks at; what is not set is unknown in it."""

    wal_archive_dir: Path | None = Field(None, description="WAL_ARCHIVE_DIR: the archive of the log.")
    depot_replication_url: SecretStr | None = Field(None, description="DEPOT_REPLICATION_URL: the primary.")
    depot_replica_url: SecretStr | None = Field(
        None, description="DEPOT_REPLICA_URL: the standby, as a role with pg_monitor."
    )
    depot_url: HttpUrl | None = Field(None, description="DEPOT_URL: the address of the depot API.")


class ChecklistSettings(ReportSettings):
    """What the disaster-recovery checklist is walked over; what is not set is unknown in it."""

    depot_dump_url: SecretStr | None = Field(
        None, description="DEPOT_DUMP_URL: what the safety backup is taken from, as depot_dump."
    )


class ExecutorSettings(ServiceSettings):
    """Whose rights merge jobs are carried out with."""

    depot_token: SecretStr = Field(
        min_length=1, description="DEPOT_TOKEN: an API token of somebody who leads the projects, or of an admin."
    )


class FailoverProvider(StrEnum):
    """Who makes another server the primary when the primary is lost."""

    ASSISTED = "assisted"
    PATRONI = "patroni"


class ReplicaSettings(BaseSettings):
    """Which servers replicate each other, and how far a standby may be behind."""

    failover_provider: FailoverProvider = Field(
        FailoverProvider.ASSISTED,
        description="FAILOVER_PROVIDER: assisted, or patroni: then nothing here promotes.",
    )
    replica_dir: Path | None = Field(None, description="REPLICA_DIR: where `depot-ops replica` keeps its nodes.")
    depot_replication_url: SecretStr | None = Field(
        None, description="DEPOT_REPLICATION_URL: the primary, as a superuser; where it names several servers, any is."
    )
    replay_lag_threshold_seconds: float = Field(
        120.0, ge=0, description="REPLAY_LAG_THRESHOLD_SECONDS: a standby without a heartbeat of longer ago lags."
    )
    replay_lag_threshold_bytes: int = Field(
        64 << 20, ge=0, description="REPLAY_LAG_THRESHOLD_BYTES: a standby that is further behind lags."
    )


class FailoverSettings(ReplicaSettings):
    """Whether and when Dagster promotes a standby by itself, and what may be lost then."""

    assisted_failover: bool = Field(
        False, description="ASSISTED_FAILOVER: whether Dagster promotes a standby when the primary is lost."
    )
    failover_failures: int = Field(
        3, ge=2, le=3, description="FAILOVER_FAILURES: so many looks without an answer are a lost primary."
    )
    failover_looks: int = Field(4, ge=2, le=5, description="FAILOVER_LOOKS: of so many looks, one after the other.")
    failover_interval_seconds: float = Field(
        1.0,
        ge=0.5,
        le=1.5,
        description="FAILOVER_INTERVAL_SECONDS: from one look to the next, half of it when one failed.",
    )
    failover_max_loss_bytes: int = Field(
        1 << 20, ge=0, description="FAILOVER_MAX_LOSS_BYTES: more of the primary's log is never lost without a person."
    )
    fence_command: str = Field(
        "", description="FENCE_COMMAND: stops a node on another host; {name}, {host}, {port} and {data} are filled in."
    )
    fence_timeout_seconds: float = Field(
        30.0, gt=0, description="FENCE_TIMEOUT_SECONDS: a fence command that takes longer has failed."
    )
    dagster_pg_url: SecretStr | None = Field(None, description="DAGSTER_PG_URL: Dagster's own storage.")
    replica_archive_dir: Path | None = Field(
        None, description="REPLICA_ARCHIVE_DIR: the archive of the log that standbys fall back to."
    )
    asset_storage_path: Path | None = Field(
        None, description="ASSET_STORAGE_PATH: the blob store, where the service keeps the cluster epoch."
    )
    backup_dir: Path | None = Field(None, description="BACKUP_DIR: where failovers are documented.")
    wal_archive_dir: Path | None = Field(None, description="WAL_ARCHIVE_DIR: the archive of the log.")

    @field_validator("failover_looks")
    @classmethod
    def _enough_looks(cls, looks: int, others: ValidationInfo) -> int:
        if looks < others.data.get("failover_failures", 0):
            raise ValueError("fewer than FAILOVER_FAILURES: the primary would never be lost")
        return looks


class PatroniSettings(ReplicaSettings):
    """Where Patroni is asked, and as whom: as patronictl has it."""

    patroni_urls: str = Field(
        "", description="PATRONI_URLS: the REST addresses of all members, separated by blanks or commas."
    )
    patroni_restapi_username: str = Field("", description="PATRONI_RESTAPI_USERNAME: who may switch over.")
    patroni_restapi_password: SecretStr = Field(SecretStr(""), description="PATRONI_RESTAPI_PASSWORD: the password.")
    patroni_ctl_cacert: Path | None = Field(None, description="PATRONI_CTL_CACERT: who signed the members' TLS.")
    patroni_ctl_certfile: Path | None = Field(None, description="PATRONI_CTL_CERTFILE: our certificate, if any.")
    patroni_ctl_keyfile: Path | None = Field(None, description="PATRONI_CTL_KEYFILE: its key.")
    asset_storage_path: Path | None = Field(
        None, description="ASSET_STORAGE_PATH: the blob store, where the service keeps the cluster epoch."
    )

    @field_validator("patroni_urls")
    @classmethod
    def _are_addresses(cls, urls: str) -> str:
        for url in urls.replace(",", " ").split():
            HttpUrl(url)
        return urls

    @property
    def rest_urls(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(url.rstrip("/") for url in self.patroni_urls.replace(",", " ").split()))


class MetricsSettings(ReplicaSettings):
    """What `depot-ops metrics` looks at; what is not set is absent from it."""

    backup_dir: Path | None = Field(None, description="BACKUP_DIR: the directory of the backups and their manifests.")
    wal_archive_dir: Path | None = Field(None, description="WAL_ARCHIVE_DIR: the archive of the log.")
    wal_spool_dir: Path | None = Field(None, description="WAL_SPOOL_DIR: where the log waits for the collector.")
    depot_replica_url: SecretStr | None = Field(
        None, description="DEPOT_REPLICA_URL: a standby that REPLICA_DIR does not know, as a role with pg_monitor."
    )
    depot_url: HttpUrl | None = Field(None, description="DEPOT_URL: the address of the depot API.")
    dagster_url: HttpUrl | None = Field(
        None, description="DAGSTER_URL: the Dagster webserver, whose checks are told by their last run."
    )
    asset_storage_path: Path | None = Field(None, description="ASSET_STORAGE_PATH: the root of the blob store.")
    asset_storage_replica_path: Path | None = Field(
        None, description="ASSET_STORAGE_REPLICA_PATH: the root of the blob store's mirror."
    )


class AlertSettings(BaseSettings):
    """Who is told of failed runs and checks; nobody when nothing is set."""

    alert_webhook_url: SecretStr | None = Field(
        None, description="ALERT_WEBHOOK_URL: each alarm is posted there as JSON."
    )
    alert_slack_url: SecretStr | None = Field(
        None, description="ALERT_SLACK_URL: an incoming webhook of Slack, or of what speaks like it."
    )
    alert_smtp_url: SecretStr | None = Field(
        None, description="ALERT_SMTP_URL: a mail server, smtp://user:password@host:587 or smtps://…"
    )
    alert_mail_from: str = Field("", description="ALERT_MAIL_FROM: the sender of mails.")
    alert_mail_to: str = Field("", description="ALERT_MAIL_TO: who gets mails, separated by commas.")
    alert_repeat_seconds: float = Field(
        14400, ge=0, description="ALERT_REPEAT_SECONDS: what is still wrong is told again after this long."
    )
    dagster_url: HttpUrl = Field(
        HttpUrl("http://127.0.0.1:3000"), description="DAGSTER_URL: the Dagster webserver, for links in alarms."
    )

    @model_validator(mode="after")
    def _mail_has_addresses(self) -> Self:
        if self.alert_smtp_url and not (self.alert_mail_from and self.alert_mail_to):
            raise ValueError("ALERT_SMTP_URL needs ALERT_MAIL_FROM and ALERT_MAIL_TO")
        return self


class TimezoneSettings(BaseSettings):
    """Where a night begins."""

    maintenance_timezone: str = Field(
        "UTC", description="MAINTENANCE_TIMEZONE: the time zone of 01:00, for example Europe/London."
    )

    @field_validator("maintenance_timezone")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"{name!r} is not a time zone; use a name such as UTC or Europe/London") from error
        return name


class OrchestratorSettings(TimezoneSettings):
    """How the nightly work is planned, and how long its history is kept."""

    dagster_keep_runs_days: int = Field(
        90, ge=1, description="DAGSTER_KEEP_RUNS_DAYS: finished runs, events and ticks older than this are deleted."
    )


class CopyPlaceSettings(BaseSettings):
    """Where the copy of backups and the log is."""

    backup_copy_url: str = Field(
        min_length=1, description="BACKUP_COPY_URL: the second place of backups and the log, file:///… or s3://…."
    )


class CopySettings(CopyPlaceSettings, BackupSettings):
    """What is copied to a second place, and how old the copy may be."""

    wal_archive_dir: Path | None = Field(None, description="WAL_ARCHIVE_DIR: the archive of the log.")
    backup_copy_max_age_hours: float = Field(
        3, gt=0, description="BACKUP_COPY_MAX_AGE_HOURS: what waits longer to be copied is an alarm."
    )


class AtRestSettings(SecondPlaceSettings, BackupSettings):
    """What is read again a share each day."""

    wal_archive_dir: Path | None = Field(None, description="WAL_ARCHIVE_DIR: the archive of the log.")


class RetentionSettings(BackupSettings, TimezoneSettings):
    """How long backups and the log are kept. Only proved backups count, and only days that have one."""

    wal_archive_dir: Path | None = Field(None, description="WAL_ARCHIVE_DIR: the archive of the log.")
    backup_keep_mins: int = Field(
        1440, ge=0, le=10_000_000, description="BACKUP_KEEP_MINS: dumps of so many minutes before the newest are kept."
    )
    backup_keep_days: int = Field(7, ge=0, description="BACKUP_KEEP_DAYS: days of which a dump is kept.")
    backup_keep_weeks: int = Field(4, ge=0, description="BACKUP_KEEP_WEEKS: ISO weeks of which a dump is kept.")
    backup_keep_months: int = Field(6, ge=0, description="BACKUP_KEEP_MONTHS: months of which a dump is kept.")
    backup_keep_minimum: int = Field(
        2,
        ge=1,
        description="BACKUP_KEEP_MINIMUM: dumps of each database, and chains of base backups, that always stay.",
    )
    base_keep_days: int = Field(
        14, ge=0, description="BASE_KEEP_DAYS: days of which a base backup is kept, with its chain and the log since."
    )


def load(settings: type[Settings]) -> Settings:
    """Read `settings` from the environment. Raises SettingsError, which names every variable that is wrong."""
    try:
        return settings()
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc'])).upper()}: {_reason(e['type'], e['msg'])}" for e in error.errors()]
        raise SettingsError("\n".join(lines)) from None


def _reason(kind: str, message: str) -> str:
    return "not set in the environment" if kind == "missing" else message
