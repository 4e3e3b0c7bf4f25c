"""The real webserver and daemon on dagster-postgres: GraphQL answers, and a job launched from a shell ends honestly."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import urllib3
from psycopg import sql
from typer.testing import CliRunner

from depot_ops.evidence import Status
from depot_ops.launch import LaunchError, RunOutcome, launch, wait
from depot_ops.launch_commands import app

REPOSITORY = Path(__file__).parents[3]
BIN = Path(sys.executable).parent
DEADLINE_SECONDS = 90

CATALOGUE = """{
  repositoriesOrError { ... on RepositoryConnection { nodes {
    jobs { name } schedules { name scheduleState { status } }
    assetNodes { assetKey { path } groupName hasAssetChecks description } } } }
  instance { runQueueConfig { maxConcurrentRuns } }
  runsOrError { __typename ... on Runs { results { runId } } }
  assetsOrError { __typename ... on PythonError { message } }
}"""

CONFIGURATION = """query Resources($name: String!) {
  topLevelResourceDetailsOrError(resourceSelector: {
    repositoryName: "__repository__", repositoryLocationName: "depot_ops.definitions", resourceName: $name}) {
    ... on ResourceDetails { configuredValues { key value type } } }
}"""


@dataclass(frozen=True)
class Dagster:
    url: str
    backups: Path

    def ask(self, query: str, **variables: str) -> dict:
        body = {"query": query, "variables": variables}
        return json.loads(urllib3.request("POST", f"{self.url}/graphql", json=body, retries=False).data)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.2)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def process(arguments: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        running = subprocess.Popen(
            arguments, env=environment, cwd=REPOSITORY, stdout=output, stderr=output, start_new_session=True
        )
        try:
            yield running
        finally:
            running.terminate()
            try:
                running.wait(timeout=20)
            except subprocess.TimeoutExpired:
                os.killpg(running.pid, signal.SIGKILL)
                running.wait()


@pytest.fixture(scope="module")
def dagster(cluster, depot_template, tmp_path_factory) -> Iterator[Dagster]:
    home = tmp_path_factory.mktemp("dagster")
    shutil.copy(REPOSITORY / "dagster_home" / "dagster.yaml", home)
    name = f"dagster_{secrets.token_hex(4)}"
    with psycopg.connect(cluster.url(), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    port = free_port()
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "DAGSTER_PG_URL": cluster.url(name).replace("postgresql://", "postgresql+psycopg2://"),
        "DEPOT_URL": f"http://127.0.0.1:{free_port()}",
        "DEPOT_DUMP_URL": cluster.url(depot_template, "depot_dump"),
        "DEPOT_PG_BINDIR": str(cluster.binaries.bindir),
        "BACKUP_DIR": str(home / "backups"),
    }
    webserver = [str(BIN / "dagster-webserver"), "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port)]
    daemon = [str(BIN / "dagster-daemon"), "run", "-w", "workspace.yaml"]
    started = Dagster(f"http://127.0.0.1:{port}", home / "backups")
    with process(webserver, environment, home / "webserver.log") as server:

        def answers() -> bool:
            assert server.poll() is None, (home / "webserver.log").read_text()
            try:
                return urllib3.request("GET", f"{started.url}/server_info", retries=False).status == 200
            except urllib3.exceptions.HTTPError:
                return False

        wait_until(answers)
        with process(daemon, environment, home / "daemon.log"):
            yield started
    with psycopg.connect(cluster.url(), autocommit=True) as admin:
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_graphql_answers_from_postgres_with_everything_that_is_defined(dagster):
    # Twice: under the wrong driver the first answer closes the connection that the second needs.
    for _ in range(2):
        answer = dagster.ask(CATALOGUE)
        assert "errors" not in answer
        data = answer["data"]
        repository = data["repositoriesOrError"]["nodes"][0]
        assert {"nightly_maintenance", "backup_verification", "dagster_maintenance"} <= {
            job["name"] for job in repository["jobs"]
        }
        assert {schedule["scheduleState"]["status"] for schedule in repository["schedules"]} == {"RUNNING"}
        assets = {asset["assetKey"]["path"][0]: asset for asset in repository["assetNodes"]}
        assert assets["logical_backup"]["groupName"] == "backup"
        assert assets["depot_service"]["hasAssetChecks"]
        assert data["runsOrError"]["__typename"] == "Runs"
        assert data["assetsOrError"]["__typename"] == "AssetConnection"


def test_the_ui_shows_names_of_variables_and_no_secret(dagster):
    answer = dagster.ask(CONFIGURATION, name="dump_source")["data"]["topLevelResourceDetailsOrError"]
    assert answer["configuredValues"] == [{"key": "url", "value": "DEPOT_DUMP_URL", "type": "ENV_VAR"}]


def test_a_job_launched_from_a_shell_ends_with_its_result_as_exit_code(dagster):
    # No depot answers here, so the night is red for that reason alone.
    night = CliRunner().invoke(app, ["nightly_maintenance", "--dagster-url", dagster.url, "--json"])
    assert night.exit_code == 1, night.output
    outcome = json.loads(night.stdout)
    assert outcome["dagster_status"] == "FAILURE"
    assert {check["check"]: check["passed"] for check in outcome["checks"]} == {
        "restorable_listing": True,
        "full_read": True,
        "checksum": True,
        "row_counts": True,
        "backup_age": True,
        "service_health": False,
    }
    assert len(list(dagster.backups.glob("*.dump"))) == 1

    verified = CliRunner().invoke(app, ["backup_verification", "--dagster-url", dagster.url])
    assert verified.exit_code == 0, verified.output
    assert "checksum" in verified.stdout


def test_a_run_that_has_not_ended_in_time_is_unknown(dagster):
    command = ["dagster_maintenance", "--dagster-url", dagster.url, "--timeout-seconds", "0", "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 3, result.output
    run = RunOutcome.model_validate_json(result.stdout)
    assert wait(dagster.url, run, DEADLINE_SECONDS).status is Status.HEALTHY


def test_an_unknown_job_is_named_and_exits_3(dagster):
    result = CliRunner().invoke(app, ["no_such_job", "--dagster-url", dagster.url])
    assert result.exit_code == 3
    assert "no_such_job" in result.stderr


def test_a_webserver_that_does_not_answer_exits_3():
    url = f"http://127.0.0.1:{free_port()}"
    result = CliRunner().invoke(app, ["nightly_maintenance", "--dagster-url", url])
    assert result.exit_code == 3
    assert "is the stack up" in result.stderr
    with pytest.raises(LaunchError):
        launch(url, "nightly_maintenance")
