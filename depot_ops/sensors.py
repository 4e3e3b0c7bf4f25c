"""What is looked at all the time, not only at night."""

from collections.abc import Sequence

import dagster as dg

from depot_ops.assets.replica import observation, replica_key
from depot_ops.checks.result import check_result
from depot_ops.replicas.nodes import Node
from depot_ops.replicas.watch import LAG, Watched
from depot_ops.resources import Replicas

LAG_INTERVAL_SECONDS = 30


def replica_sensors(nodes: Sequence[Node]) -> list[dg.SensorDefinition]:
    """None where there is nothing to watch."""
    return [_lag_sensor(list(nodes))] if nodes else []


def _lag_sensor(nodes: list[Node]) -> dg.SensorDefinition:
    @dg.sensor(
        name=LAG,
        minimum_interval_seconds=LAG_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        asset_selection=[replica_key(node) for node in nodes],
        description=(
            "Observes every server in REPLICA_DIR twice a minute and judges its lag. It starts no run: what it finds is"
            " on the asset, as figures and as the check replica_lag, whose failure is the alert."
        ),
    )
    def replica_lag(replicas: Replicas) -> dg.SensorResult:
        found = replicas.watch(nodes)
        return dg.SensorResult(asset_events=[*map(observation, found), *map(_evaluation, found)])

    return replica_lag


def _evaluation(watched: Watched) -> dg.AssetCheckEvaluation:
    result = check_result(watched.finding())
    return dg.AssetCheckEvaluation(
        asset_key=replica_key(watched.node),
        check_name=LAG,
        passed=result.passed,
        severity=result.severity,
        description=result.description,
        metadata=result.metadata,
    )
