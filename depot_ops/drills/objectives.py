"""Are we as good as we promise? Judged by the evidence that drills left, so that a drill that never ran is red too."""

from datetime import UTC, datetime
from enum import StrEnum

from depot_ops.drills.record import DrillKind, DrillRecord, DrillRecordUnusable, DrillResult, find_drills, load_drill
from depot_ops.evidence import Figures, Finding, Status
from depot_ops.settings import ObjectiveSettings


class Objective(StrEnum):
    """What is promised of a recovery."""

    RTO = "rto_within_objective"
    RPO = "rpo_within_objective"
    AGE = "drill_age"
    LOGICAL_AGE = "logical_drill_age"
    COPY_AGE = "copy_drill_age"


OF_WHAT_LIES_HERE = (Objective.RTO, Objective.RPO, Objective.AGE, Objective.LOGICAL_AGE)


def check_objective(objective: Objective, settings: ObjectiveSettings) -> Finding:
    """Is it kept, by the drills in BACKUP_DIR? What cannot be read is unknown; no drill at all is unhealthy."""
    kind = DrillKind.LOGICAL if objective is Objective.LOGICAL_AGE else DrillKind.BASE
    from_copy = objective is Objective.COPY_AGE
    try:
        drills = [load_drill(path) for path in find_drills(settings.backup_dir)]
    except (OSError, DrillRecordUnusable) as error:
        return Finding(check=objective, status=Status.UNKNOWN, detail=str(error))
    alike = [drill for drill in drills if drill.kind is kind and (drill.from_place is not None) is from_copy]
    ended = [drill for drill in alike if drill.result is not DrillResult.UNFINISHED]
    if not ended:
        option = " --from-copy" if from_copy else ""
        detail = f"no drill of a {kind} backup has ended yet: launch one with `depot-ops drill run{option}`"
        return Finding(check=objective, status=Status.UNHEALTHY, detail=detail)
    if objective is Objective.RTO:
        return _within(objective, ended[-1], "rto_seconds", settings.rto_objective_seconds)
    if objective is Objective.RPO:
        return _within(objective, ended[-1], "rpo_seconds", settings.rpo_objective_seconds)
    return _young(objective, ended, settings.drill_max_age_seconds)


def _within(objective: Objective, newest: DrillRecord, figure: str, objective_seconds: float) -> Finding:
    figures: Figures = {"file": newest.label, "objective_seconds": objective_seconds}
    measured = newest.figures.get(figure)
    if newest.result is not DrillResult.PASSED or measured is None:
        detail = f"the newest drill failed, and says nothing of it: {newest.reason}"
        return Finding(check=objective, status=Status.UNHEALTHY, detail=detail, figures=figures)
    status = Status.HEALTHY if float(measured) <= objective_seconds else Status.UNHEALTHY
    detail = f"{measured} s, and the objective is {objective_seconds:g} s"
    return Finding(check=objective, status=status, detail=detail, figures={**figures, figure: measured})


def _young(objective: Objective, ended: list[DrillRecord], max_seconds: float) -> Finding:
    """One that failed since does not make the last that passed any younger."""
    finished = [drill.finished_at for drill in ended if drill.result is DrillResult.PASSED and drill.finished_at]
    if not finished:
        detail = f"no drill has ever passed; the newest: {ended[-1].reason}"
        return Finding(check=objective, status=Status.UNHEALTHY, detail=detail)
    age_seconds = round((datetime.now(UTC) - finished[-1]).total_seconds(), 1)
    status = Status.HEALTHY if age_seconds <= max_seconds else Status.UNHEALTHY
    detail = f"the newest that passed ended {finished[-1]:%Y-%m-%d %H:%M} UTC"
    figures: Figures = {"age_seconds": age_seconds, "max_seconds": max_seconds}
    return Finding(check=objective, status=status, detail=detail, figures=figures)
