"""How old the newest base backup is."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from depot_ops.evidence import Finding, Status
from depot_ops.postgres.base_record import BaseRecordUnusable, find_base_backups, load_base_backup

BASE_BACKUP_AGE = "base_backup_age"
NONE_THERE = "there is no base backup: launch full_backup"


def check_age(backup_dir: Path, max_hours: float) -> Finding:
    """Was the newest base backup taken within `max_hours`?"""
    try:
        paths = find_base_backups(backup_dir)
        if not paths:
            return Finding(check=BASE_BACKUP_AGE, status=Status.UNHEALTHY, detail=NONE_THERE)
        record = load_base_backup(paths[-1]).record
    except (BaseRecordUnusable, OSError) as error:
        return Finding(check=BASE_BACKUP_AGE, status=Status.UNKNOWN, detail=str(error))
    age = datetime.now(UTC) - record.finished_at
    status = Status.UNHEALTHY if age > timedelta(hours=max_hours) else Status.HEALTHY
    return Finding(
        check=BASE_BACKUP_AGE,
        status=status,
        detail=f"{record.label} was finished {record.finished_at:%Y-%m-%d %H:%M} UTC",
        figures={"age_seconds": round(age.total_seconds()), "max_age_seconds": max_hours * 3600},
    )
