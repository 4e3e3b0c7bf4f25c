"""Is everything at the place that is to be there, and when was it last so?"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import ValidationError

from depot_ops.copies.copying import EVIDENCE_NAME, Copied
from depot_ops.copies.holdings import listing
from depot_ops.copies.units import Unit, log_units, units
from depot_ops.evidence import Figures, Finding, Status
from depot_ops.places import Place, PlaceError
from depot_ops.postgres.wal.archive import ArchiveError

COPY_COMPLETE = "copy_complete"
COPY_AGE = "copy_age"


def check_complete(backup_dir: Path, archive_root: Path | None, place: Place, max_age: timedelta) -> Finding:
    """Has everything that is older than `max_age` a copy, by names and sizes? Younger things may wait."""
    try:
        known = list(units(backup_dir, archive_root))
        held = listing(place)
    except (PlaceError, ArchiveError, OSError) as error:
        return Finding(check=COPY_COMPLETE, status=Status.UNKNOWN, detail=str(error))
    waiting = {unit: size for unit in known if (size := _missing_bytes(unit, held))}
    figures: Figures = {
        "units": len(known),
        "missing_units": len(waiting),
        "missing_bytes": sum(waiting.values()),
        "oldest_missing_seconds": 0,
    }
    if not waiting:
        detail = f"all {len(known)} backups, files of the log and drills are at {place}"
        return Finding(check=COPY_COMPLETE, status=Status.HEALTHY, detail=detail, figures=figures)
    oldest = min(waiting, key=lambda unit: unit.finished_at)
    age = datetime.now(UTC) - oldest.finished_at
    figures["oldest_missing_seconds"] = round(age.total_seconds())
    return Finding(
        check=COPY_COMPLETE,
        status=Status.UNHEALTHY if age > max_age else Status.HEALTHY,
        detail=f"{len(waiting)} are not at {place}, the oldest is {oldest.kind} {oldest.name}",
        figures=figures,
    )


def log_behind_seconds(archive_root: Path, place: Place) -> float:
    """For how long the oldest file of the log that is not there has been here. Raises PlaceError, ArchiveError."""
    held = listing(place)
    waiting = [unit.finished_at for unit in log_units(archive_root) if _missing_bytes(unit, held)]
    return (datetime.now(UTC) - min(waiting)).total_seconds() if waiting else 0.0


def _missing_bytes(unit: Unit, held: dict[str, int]) -> int:
    try:
        return sum(file.size_bytes for file in unit.missing(held))
    except FileNotFoundError:
        return 0  # deleted since it was listed, or damage that the checks of what is here are red for


def check_age(backup_dir: Path, max_age: timedelta) -> Finding:
    """Did the last pass that left nothing out begin within `max_age`?"""
    path = backup_dir / EVIDENCE_NAME
    try:
        copied = Copied.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        detail = "nothing was ever copied whole: run `depot-ops backup copy`"
        return Finding(check=COPY_AGE, status=Status.UNHEALTHY, detail=detail)
    except (OSError, ValidationError) as error:
        return Finding(check=COPY_AGE, status=Status.UNKNOWN, detail=f"{path} cannot be used: {error}")
    age = datetime.now(UTC) - copied.started_at
    return Finding(
        check=COPY_AGE,
        status=Status.UNHEALTHY if age > max_age else Status.HEALTHY,
        detail=f"everything that was here at {copied.started_at:%Y-%m-%d %H:%M} UTC is at {copied.place}",
        figures={"age_seconds": round(age.total_seconds()), "max_age_seconds": max_age.total_seconds()},
    )
