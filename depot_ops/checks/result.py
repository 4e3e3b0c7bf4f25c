"""How a finding looks in Dagster."""

import dagster as dg

from depot_ops.evidence import Finding, Status, worst


def together(findings: list[Finding]) -> Finding:
    """One finding for the same check on several things; each that is not healthy is named by its figures."""
    if len(findings) == 1:
        return findings[0]
    shown = [finding for finding in findings if finding.status is not Status.HEALTHY] or findings
    return Finding(
        check=findings[0].check,
        status=worst(findings),
        detail="; ".join(f"{f.figures.get('database', '')} {f.figures.get('file', '')}: {f.detail}" for f in shown),
        figures={"looked_at": len(findings), "not_healthy": len([f for f in shown if f.status is not Status.HEALTHY])},
    )


def check_result(finding: Finding) -> dg.AssetCheckResult:
    """Only healthy passes: unknown fails too, and says that it is unknown."""
    return dg.AssetCheckResult(
        check_name=str(finding.check),
        passed=finding.status is Status.HEALTHY,
        severity=dg.AssetCheckSeverity.ERROR,
        description=finding.detail,
        metadata={"status": str(finding.status), **finding.figures},
    )
