"""How a finding looks in Dagster."""

import dagster as dg

from depot_ops.evidence import Finding, Status


def check_result(finding: Finding) -> dg.AssetCheckResult:
    """Only healthy passes: unknown fails too, and says that it is unknown."""
    return dg.AssetCheckResult(
        check_name=str(finding.check),
        passed=finding.status is Status.HEALTHY,
        severity=dg.AssetCheckSeverity.ERROR,
        description=finding.detail,
        metadata={"status": str(finding.status), **finding.figures},
    )
