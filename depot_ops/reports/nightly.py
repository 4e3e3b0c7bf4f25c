"""The nightly report: is the newest dump good, the log fresh, the service up, the replica near?"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

from depot_ops.copies.checks import COPY_COMPLETE, check_age, check_complete
from depot_ops.evidence import Figures, Finding, Status, worst
from depot_ops.health import CHECK as SERVICE_HEALTH
from depot_ops.health import check_service
from depot_ops.places import PlaceError, open_place
from depot_ops.postgres.base_record import BaseRecordUnusable, oldest_needed_segment
from depot_ops.postgres.dump_checks import verify_newest
from depot_ops.postgres.dump_record import RecordTooNew, RecordUnusable, load_record, newest_backups
from depot_ops.postgres.standby import HEALTH as REPLICA_HEALTH
from depot_ops.postgres.standby import check_freshness_by_standby, check_standby
from depot_ops.postgres.wal.archive import ArchiveError, WalArchive, open_archive
from depot_ops.postgres.wal.inventory import CONTINUITY, check_continuity
from depot_ops.postgres.wal.progress import ARRIVAL_SECONDS, FRESHNESS, check_freshness
from depot_ops.postgres.wal.stream import STREAM, check_stream
from depot_ops.replicas.hosts import watched_hosts
from depot_ops.settings import SettingsError

BACKUP_AGE = "backup_age"
MAX_BACKUP_AGE_HOURS = 26.0  # a night, and two hours for it to take
MAX_COPY_AGE_HOURS = 3.0


class ReportScope(BaseModel):
    """What there is to look at. What is not given is unknown in the report, never left out of it.

    But for a stream of the log, a second place and a standby, which not every studio has.
    """

    model_config = ConfigDict(frozen=True)

    backup_dir: Path | None = None
    archive_dir: Path | None = None
    primary_url: str | None = None
    replica_url: str | None = None
    health_url: str | None = None
    stream_dir: Path | None = None
    copy_url: str | None = None
    max_backup_age_hours: float = MAX_BACKUP_AGE_HOURS
    max_copy_age_hours: float = MAX_COPY_AGE_HOURS
    arrival_seconds: float = ARRIVAL_SECONDS


class OpsReport(BaseModel):
    """How the depot's operations are, all in all and check by check."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    status: Status
    started_at: AwareDatetime
    finished_at: AwareDatetime
    findings: tuple[Finding, ...]


def make_report(scope: ReportScope) -> OpsReport:
    """Run every check. Changes nothing but that the primary, where given, is asked to finish a segment of its log."""
    started_at = datetime.now(UTC)
    findings = (
        *_dumps(scope),
        *_log(scope),
        *_copy(scope),
        check_service(scope.health_url) if scope.health_url else _not_given(SERVICE_HEALTH, "--health-url"),
        *_standby(scope),
    )
    return OpsReport(status=worst(findings), started_at=started_at, finished_at=datetime.now(UTC), findings=findings)


def _dumps(scope: ReportScope) -> list[Finding]:
    if scope.backup_dir is None:
        return [_not_given(BACKUP_AGE, "--backup-dir")]
    return [*verify_newest(scope.backup_dir), check_backup_age(scope.backup_dir, scope.max_backup_age_hours)]


def check_backup_age(backup_dir: Path, max_hours: float = MAX_BACKUP_AGE_HOURS) -> Finding:
    """Was the newest dump of each database taken within `max_hours`?"""
    try:
        backups = newest_backups(backup_dir)
        if not backups:
            detail = f"there is no backup in {backup_dir}: take one with `depot-ops backup logical`"
            return Finding(check=BACKUP_AGE, status=Status.UNHEALTHY, detail=detail)
        record = min((load_record(backup) for backup in backups), key=lambda record: record.started_at)
    except (RecordUnusable, RecordTooNew, OSError) as error:
        return Finding(check=BACKUP_AGE, status=Status.UNKNOWN, detail=str(error))
    age = datetime.now(UTC) - record.started_at
    figures: Figures = {"file": record.file, "database": record.database, "age_seconds": round(age.total_seconds())}
    if age > timedelta(hours=max_hours):
        detail = (
            f"it was taken more than {max_hours:g} h ago: look at the last run of nightly_maintenance; where"
            f" {record.database} is gone for good, move its dumps out of the directory"
        )
        return Finding(check=BACKUP_AGE, status=Status.UNHEALTHY, detail=detail, figures=figures)
    detail = f"taken {record.started_at:%Y-%m-%d %H:%M} UTC"
    return Finding(check=BACKUP_AGE, status=Status.HEALTHY, detail=detail, figures=figures)


def _log(scope: ReportScope) -> list[Finding]:
    if scope.archive_dir is None:
        return [_not_given(FRESHNESS, "--archive-dir")]
    try:
        archive = open_archive(scope.archive_dir)
    except ArchiveError as error:
        return [Finding(check=FRESHNESS, status=Status.UNKNOWN, detail=str(error))]
    return [_continuity(scope, archive), _freshness(scope, archive), *_stream(scope, archive)]


def _continuity(scope: ReportScope, archive: WalArchive) -> Finding:
    try:
        oldest = oldest_needed_segment(scope.backup_dir, archive.system_identifier) if scope.backup_dir else None
    except (BaseRecordUnusable, OSError) as error:
        return Finding(check=CONTINUITY, status=Status.UNKNOWN, detail=str(error))
    return check_continuity(archive, oldest)


def _stream(scope: ReportScope, archive: WalArchive) -> list[Finding]:
    if scope.stream_dir is None:
        return []
    if scope.primary_url is None:
        return [_not_given(STREAM, "--primary-url")]
    return [check_stream(scope.primary_url, scope.stream_dir, archive)]


def _copy(scope: ReportScope) -> list[Finding]:
    if scope.copy_url is None:
        return []
    if scope.backup_dir is None:
        return [_not_given(COPY_COMPLETE, "--backup-dir")]
    max_age = timedelta(hours=scope.max_copy_age_hours)
    try:
        place = open_place(scope.copy_url)
    except (PlaceError, SettingsError) as error:
        return [Finding(check=COPY_COMPLETE, status=Status.UNKNOWN, detail=str(error))]
    return [check_complete(scope.backup_dir, scope.archive_dir, place, max_age), check_age(scope.backup_dir, max_age)]


def _standby(scope: ReportScope) -> list[Finding]:
    if scope.replica_url:
        return [check_standby(scope.replica_url, scope.primary_url)]
    # Where there are standbys, the primary's address names them, too.
    is_alone = scope.primary_url is not None and not watched_hosts(scope.primary_url)
    return [] if is_alone else [_not_given(REPLICA_HEALTH, "--replica-url")]


def _freshness(scope: ReportScope, archive: WalArchive) -> Finding:
    # By progress, which a server has to tell: a file's age calls an idle database stale and a dead archiver fresh.
    if scope.primary_url:
        return check_freshness(scope.primary_url, archive, arrival_seconds=scope.arrival_seconds)
    if scope.replica_url:
        return check_freshness_by_standby(scope.replica_url, archive, arrival_seconds=scope.arrival_seconds)
    return _not_given(FRESHNESS, "--primary-url or --replica-url")


def _not_given(check: str, option: str) -> Finding:
    return Finding(check=check, status=Status.UNKNOWN, detail=f"{option} was not given: nobody looked")
