"""What is looked at all the time, not only at night."""

from collections.abc import Sequence

import dagster as dg

from depot_ops.assets.replica import WRITABLE_PRIMARY, observation, replica_key
from depot_ops.checks.result import check_result
from depot_ops.evidence import Finding
from depot_ops.replicas.watch import LAG
from depot_ops.resources import Replicas
from depot_ops.settings import FailoverProvider

LAG_INTERVAL_SECONDS = 30


def replica_sensors(provider: FailoverProvider, names: Sequence[str]) -> list[dg.SensorDefinition]:
    """None where there is nothing to watch."""
    return [_lag_sensor(list(names), provider is FailoverProvider.ASSISTED)] if names else []


def _lag_sensor(names: list[str], is_assisted: bool) -> dg.SensorDefinition:
    @dg.sensor(
        name=LAG,
        minimum_interval_seconds=LAG_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        asset_selection=[WRITABLE_PRIMARY, *map(replica_key, names)],
        description=(
            "Observes every replicating server twice a minute, judges its lag, and counts those that take writes. It"
            " starts no run: what it finds is on the assets, as figures and as the checks replica_lag,"
            " synchronous_replication, single_primary and assisted_failover, whose failure is the alert."
        ),
    )
    def replica_lag(replicas: Replicas) -> dg.SensorResult:
        found = replicas.watch(names)
        judged = [_evaluation(replica_key(one.name), one.finding()) for one in found]
        findings = [replicas.check_synchronous(), replicas.count_primaries()]
        findings += [replicas.check_assisted()] if is_assisted else []
        together = [_evaluation(WRITABLE_PRIMARY, finding) for finding in findings]
        return dg.SensorResult(asset_events=[*map(observation, found), *judged, *together])

    return replica_lag


def _evaluation(asset_key: dg.AssetKey, finding: Finding) -> dg.AssetCheckEvaluation:
    result = check_result(finding)
    return dg.AssetCheckEvaluation(
        asset_key=asset_key,
        check_name=finding.check,
        passed=result.passed,
        severity=result.severity,
        description=result.description,
        metadata=result.metadata,
    )
