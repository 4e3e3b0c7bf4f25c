"""What Dagster's checks found last: also those that take minutes, which nobody could ask at every scrape."""

from collections.abc import Iterable
from typing import Any

from depot_ops.evidence import Finding, Status
from depot_ops.launch import ask_dagster
from depot_ops.metrics.seen import Seen

CHECK = "dagster_checks"
_CHECKS = """
query Checks {
  assetNodes {
    assetKey { path }
    assetChecksOrError { ... on AssetChecks { checks {
      name
      executionForLatestMaterialization { evaluation {
        success description metadataEntries { label ... on TextMetadataEntry { text } }
      } }
    } } }
  }
}
"""


def latest_checks(dagster_url: str) -> Iterable[Seen]:
    """Each check that was made, and that Dagster could be asked. Raises LaunchError."""
    nodes = ask_dagster(dagster_url, _CHECKS, {})["assetNodes"]
    made = [
        Seen(_finding(check["name"], evaluation), asset="/".join(node["assetKey"]["path"]))
        for node in nodes
        for check in node["assetChecksOrError"].get("checks", [])
        if (evaluation := (check["executionForLatestMaterialization"] or {}).get("evaluation")) is not None
    ]
    return [*made, Seen(Finding(check=CHECK, status=Status.HEALTHY, detail=f"Dagster tells of {len(made)} checks"))]


def _finding(name: str, evaluation: dict[str, Any]) -> Finding:
    texts = {entry["label"]: entry.get("text") for entry in evaluation["metadataEntries"]}
    status = Status.HEALTHY if evaluation["success"] else Status.UNHEALTHY
    if not evaluation["success"] and texts.get("status") == Status.UNKNOWN:
        status = Status.UNKNOWN
    return Finding(check=name, status=status, detail=evaluation["description"] or "")
