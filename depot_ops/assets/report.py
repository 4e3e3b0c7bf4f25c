"""The nightly report, in Dagster: the same function as `depot-ops report`."""

from collections.abc import Iterator

import dagster as dg

from depot_ops.evidence import Status
from depot_ops.reports.nightly import OpsReport, ReportScope, make_report
from depot_ops.settings import ReportSettings, load

HEALTHY = "operations_healthy"


@dg.asset(
    group_name="evidence",
    owners=["team:depot-operations"],
    kinds={"postgres"},
    check_specs=[
        dg.AssetCheckSpec(
            HEALTHY,
            asset="ops_report",
            blocking=True,
            description=(
                "Every check of the report is healthy. Red when one is unhealthy; a warning when one is unknown,"
                " because what it asks could not be asked or is not configured: the report names it."
            ),
        )
    ],
    description=(
        "Proves the newest dump again, probes whether the log arrives in the archive, and asks the depot and its"
        " standby how they are: `depot-ops report`, each night, when the night's work should be done. It builds on"
        " nothing, so that it also tells of a night that failed. When this is red, read the report's first unhealthy"
        " line: it says what to do."
    ),
)
def ops_report() -> Iterator[dg.MaterializeResult[None]]:
    report = make_report(_scope(load(ReportSettings)))
    check = dg.AssetCheckResult(
        check_name=HEALTHY,
        passed=report.status is Status.HEALTHY,
        severity=dg.AssetCheckSeverity.WARN if report.status is Status.UNKNOWN else dg.AssetCheckSeverity.ERROR,
        description="; ".join(f"{f.check}: {f.detail}" for f in report.findings if f.status is not Status.HEALTHY),
        metadata={"status": str(report.status)},
    )
    yield dg.MaterializeResult(metadata=_figures(report), check_results=[check])


def _scope(settings: ReportSettings) -> ReportScope:
    return ReportScope(
        backup_dir=settings.backup_dir,
        archive_dir=settings.wal_archive_dir,
        primary_url=settings.depot_replication_url and settings.depot_replication_url.get_secret_value(),
        replica_url=settings.depot_replica_url and settings.depot_replica_url.get_secret_value(),
        health_url=settings.depot_url and str(settings.depot_url),
        stream_dir=settings.wal_stream_dir,
        copy_url=settings.backup_copy_url,
        max_copy_age_hours=settings.backup_copy_max_age_hours,
    )


def _figures(report: OpsReport) -> dict[str, dg.MetadataValue | int | float | str]:
    rows = [f"| {f.status} | {f.check} | {f.detail} |" for f in report.findings]
    counts = {str(status): sum(f.status is status for f in report.findings) for status in Status}
    return {
        **counts,
        "status": str(report.status),
        "duration_seconds": (report.finished_at - report.started_at).total_seconds(),
        "findings": dg.MetadataValue.md("\n".join(["| status | check | detail |", "|---|---|---|", *rows])),
        "report": dg.MetadataValue.json(report.model_dump(mode="json")),
    }
