"""Launching a Dagster job and waiting for its end, over the webserver's GraphQL: the same as the UI's button."""

import json
import time
from typing import Any

import urllib3
from pydantic import BaseModel

from depot_ops.evidence import Status

CODE_LOCATION, REPOSITORY = "depot_ops.definitions", "__repository__"
POLL_SECONDS = 0.5  # the daemon takes seconds to start a run; asking more often shows nothing sooner
TIMEOUT_SECONDS = 30

_LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on Error { message }
  }
}
"""

_RUN = """
query Run($id: ID!) {
  runOrError(runId: $id) {
    __typename
    ... on Error { message }
    ... on Run {
      status
      eventConnection(limit: 1000) {
        events {
          __typename
          ... on ErrorEvent { error { message causes { message } } }
          ... on AssetCheckEvaluationEvent { evaluation { checkName success description } }
        }
      }
    }
  }
}
"""


class LaunchError(Exception):
    """Dagster cannot be reached or does not know the job; the message says which."""


class CheckOutcome(BaseModel):
    """One asset check of the run."""

    check: str
    passed: bool
    detail: str


class RunOutcome(BaseModel):
    """A launched run: how it stands, its checks, and why it failed."""

    run_id: str
    job: str
    url: str
    dagster_status: str
    status: Status
    checks: list[CheckOutcome] = []
    errors: list[str] = []


def launch(dagster_url: str, job: str) -> RunOutcome:
    """Queue `job` and return at once; its status is unknown until it has ended. Raises LaunchError."""
    selector = {"repositoryLocationName": CODE_LOCATION, "repositoryName": REPOSITORY, "jobName": job}
    answer = ask_dagster(dagster_url, _LAUNCH, {"params": {"selector": selector, "runConfigData": {}}})["launchRun"]
    if answer["__typename"] != "LaunchRunSuccess":
        raise LaunchError(f"{job} was not launched: {answer.get('message', answer['__typename'])}")
    return _outcome(dagster_url, job, answer["run"]["runId"], "QUEUED", [])


def wait(dagster_url: str, run: RunOutcome, timeout_seconds: float) -> RunOutcome:
    """Wait until `run` has ended, and say how. Still unknown after `timeout_seconds`. Raises LaunchError."""
    deadline = time.monotonic() + timeout_seconds
    while (run := _look(dagster_url, run)).status is Status.UNKNOWN and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return run


def _look(dagster_url: str, run: RunOutcome) -> RunOutcome:
    answer = ask_dagster(dagster_url, _RUN, {"id": run.run_id})["runOrError"]
    if answer["__typename"] != "Run":
        raise LaunchError(f"run {run.run_id} is not known to {dagster_url}: {answer.get('message')}")
    return _outcome(dagster_url, run.job, run.run_id, answer["status"], answer["eventConnection"]["events"])


def _outcome(dagster_url: str, job: str, run_id: str, dagster_status: str, events: list[dict[str, Any]]) -> RunOutcome:
    ended = {"SUCCESS": Status.HEALTHY, "FAILURE": Status.UNHEALTHY, "CANCELED": Status.UNHEALTHY}
    evaluations = [e["evaluation"] for e in events if e["__typename"] == "AssetCheckEvaluationEvent"]
    return RunOutcome(
        run_id=run_id,
        job=job,
        url=f"{dagster_url.rstrip('/')}/runs/{run_id}",
        dagster_status=dagster_status,
        status=ended.get(dagster_status, Status.UNKNOWN),
        checks=[
            CheckOutcome(check=e["checkName"], passed=e["success"], detail=e["description"] or "") for e in evaluations
        ],
        errors=list(dict.fromkeys(_reason(event["error"]) for event in events if event.get("error"))),
    )


def _reason(error: dict[str, Any]) -> str:
    # The outermost is Dagster saying in which step; its first cause is the sentence that our code raised.
    return str([*error["causes"], error][0]["message"]).strip()


def ask_dagster(dagster_url: str, query: str, variables: dict[str, Any]) -> dict[str, Any]:
    """What the webserver answers to a GraphQL query. Raises LaunchError."""
    address = dagster_url.rstrip("/") + "/graphql"
    try:
        body = {"query": query, "variables": variables}
        answer = urllib3.request("POST", address, json=body, timeout=TIMEOUT_SECONDS, retries=False)
        content = json.loads(answer.data)
    except (urllib3.exceptions.HTTPError, ValueError) as error:
        raise LaunchError(f"no Dagster webserver answers at {dagster_url}: is the stack up? ({error})") from error
    if "data" not in content or content["data"] is None:
        raise LaunchError(f"{address} answered {answer.status}: {content.get('errors', content)}")
    data: dict[str, Any] = content["data"]
    return data
