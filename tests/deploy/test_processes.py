"""What compose would start, as processes: the same commands, environment, secrets and checks of health.

Only places differ: a container's directories lie below one of this test, and its ports are free ones of this machine.
An environment holds nothing but what the image and docker-compose.yml put there: what they lack fails here.
"""

import hashlib
import importlib.util
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest
from psycopg import sql

from depot_api.secret_files import with_secrets
from depot_ops.launch import launch, wait
from depot_ops.local.ports import any_free
from depot_ops.postgres.cluster import Cluster
from tests.end_to_end import test_stack as end_to_end
from tests.end_to_end.test_stack import library, tree

__all__ = ["library", "tree"]

REPOSITORY = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
ENTRYPOINT = [sys.executable, "-m", "depot_api.secret_files"]
STARTED = ("asset-service", "wal-collector", "blob-mirror", "depot-ops-metrics", "dagster-webserver", "dagster-daemon")
HEALTHY_SECONDS = 60
# Asked below, once they have something to tell.
UNASKED = ("dagster-daemon", "blob-mirror", "wal-collector", "depot-ops-metrics")
RESOURCES = """{ allTopLevelResourceDetailsOrError(repositorySelector: {
  repositoryName: "__repository__", repositoryLocationName: "depot_ops.definitions"}) {
    ... on ResourceDetailsList { results { name configuredValues { key value } } } } }"""


def made_secrets(directory: Path) -> None:
    loaded = importlib.util.spec_from_file_location("make_secrets", REPOSITORY / "deploy" / "make_secrets.py")
    module = importlib.util.module_from_spec(loaded)
    loaded.loader.exec_module(module)
    module.make_secrets(directory)


@dataclass
class Places:
    """Where what a container names is on this machine."""

    root: Path
    here: dict[str, str]

    def translate(self, text: str) -> str:
        for there, here in self.here.items():
            text = re.sub(rf"{re.escape(there)}(?![\w-])", here, text)
        return text

    def command(self, words: list[str]) -> list[str]:
        program, *rest = (self.translate(word) for word in words)
        return [str(BIN / program) if (BIN / program).exists() else program, *rest]

    def environment(self, service: dict[str, Any]) -> dict[str, str]:
        given = {name: self.translate(str(value)) for name, value in service.get("environment", {}).items()}
        image = {
            "SECRETS_DIR": self.translate("/run/secrets"),
            "PATH": f"{BIN}:{os.defpath}",
            "DAGSTER_HOME": str(self.root / "dagster_home"),
            "PYTHONUNBUFFERED": "1",
        }
        return {"PYTHONPATH": str(REPOSITORY), **image, **given}


@dataclass
class Running:
    services: dict[str, Any]
    places: Places
    ports: dict[str, int]
    secrets: dict[str, str]
    processes: dict[str, subprocess.Popen[bytes]]
    primary: Cluster

    def log(self, name: str) -> str:
        return (self.places.root / f"{name}.log").read_text(errors="replace")

    # What the end-to-end suite asks of the embedded stack.
    run, graphql = end_to_end.Stack.run, end_to_end.Stack.graphql

    @property
    def data_dir(self) -> Path:
        return self.places.root

    @property
    def told(self) -> dict[str, object]:
        return {"dagster_url": f"http://127.0.0.1:{self.ports['dagster-webserver']}"}

    def environment(self) -> dict[str, str]:
        """As of a shell in code-server."""
        there = with_secrets(self.places.environment(self.services["code-server"]))
        return there | {"DAGSTER_URL": str(self.told["dagster_url"])}

    def metrics(self) -> str:
        return httpx.get(f"http://127.0.0.1:{self.ports['depot-ops-metrics']}/metrics").raise_for_status().text

    def start(self, name: str) -> None:
        service = self.services[name]
        with (self.places.root / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                [*ENTRYPOINT, *self.places.command(service["command"])],
                env=self.places.environment(service),
                cwd=self.places.root,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def migrate(self) -> None:
        service = self.services["migrate"]
        command = [*ENTRYPOINT, *self.places.command(service["command"])]
        environment = self.places.environment(service)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert not [secret for secret in self.secrets.values() if secret in done.stdout + done.stderr]

    def wait_until_healthy(self, name: str) -> None:
        kind, *words = self.services[name]["healthcheck"]["test"]
        command = self.places.command(words) if kind == "CMD" else ["sh", "-c", *map(self.places.translate, words)]
        environment = self.places.environment(self.services[name])
        deadline = time.monotonic() + HEALTHY_SECONDS
        while subprocess.run(command, env=environment, capture_output=True, check=False).returncode != 0:
            assert self.processes[name].poll() is None, self.log(name)
            assert time.monotonic() < deadline, self.log(name)
            time.sleep(0.5)

    def stop(self) -> None:
        for process in reversed(self.processes.values()):
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="depot-compose-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def directory(root) -> Path:
    """Of the end-to-end suite's fixtures."""
    return root


@pytest.fixture(scope="module")
def primary(root, services, cluster) -> Iterator[Cluster]:
    """The container `db`, with the settings of its command and its access rules."""
    made_secrets(root / "secrets")
    home = root / "db"
    given = (word.removeprefix("--").split("=", 1) for word in services["db"]["command"][1:])
    settings = {name: f"'{value}'" for name, value in given} | {"shared_buffers": "'64MB'", "fsync": "'off'"}
    settings["hba_file"] = f"'{home / 'pg_hba.conf'}'"
    settings["basic_archive.archive_directory"] = f"'{home / 'wal_spool'}'"
    password = (root / "secrets" / "postgres_password").read_text()
    made = Cluster(home, any_free(), password, cluster.binaries, cluster.account, settings)
    made.initialize()
    shutil.copy(REPOSITORY / "deploy" / "postgres" / "pg_hba.conf", home)
    cluster.account.own(home / "pg_hba.conf")
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def dagster_port(root, cluster, primary) -> Iterator[int]:
    """The container `dagster-db`: a database of another server than the depot's."""
    password = (root / "secrets" / "dagster_db_password").read_text()
    with psycopg.connect(cluster.url(), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE ROLE dagster LOGIN PASSWORD {}").format(sql.Literal(password)))
        admin.execute("CREATE DATABASE dagster OWNER dagster")
    yield cluster.port
    with psycopg.connect(cluster.url(), autocommit=True) as admin:
        admin.execute("DROP DATABASE dagster WITH (FORCE)")
        admin.execute("DROP ROLE dagster")


@pytest.fixture(scope="module")
def stack(root, services, primary, dagster_port) -> Iterator[Running]:
    ports = {name: any_free() for name in ("asset-service", "dagster-webserver", "code-server", "depot-ops-metrics")}
    here = {
        "asset-service:8000": f"127.0.0.1:{ports['asset-service']}",
        "127.0.0.1:8000": f"127.0.0.1:{ports['asset-service']}",
        "dagster-webserver:3000": f"127.0.0.1:{ports['dagster-webserver']}",
        "127.0.0.1:3000": f"127.0.0.1:{ports['dagster-webserver']}",
        "127.0.0.1:9188": f"127.0.0.1:{ports['depot-ops-metrics']}",
        "0.0.0.0:9188": f"127.0.0.1:{ports['depot-ops-metrics']}",
        "/var/lib/asset-depot": str(root / "blobs"),
        "/run/secrets": str(root / "secrets"),
        "/wal_spool": str(primary.wal_spool),
        "workspace.yaml": str(REPOSITORY / "deploy" / "workspace.yaml"),
        "code-server": "127.0.0.1",
        "0.0.0.0": "127.0.0.1",
    }
    here |= {f"/{name}": str(root / name) for name in ("mirror", "backups", "wal_archive", "drill")}
    numbers = {"8000": "asset-service", "3000": "dagster-webserver", "4000": "code-server"}
    here |= {number: str(ports[name]) for number, name in numbers.items()}
    for secret in (root / "secrets").iterdir():
        text = secret.read_text()
        there = {"db:5432,standby:5432": f"127.0.0.1:{primary.port}", "dagster-db:5432": f"127.0.0.1:{dagster_port}"}
        for name, address in {**there, "standby:5432": f"127.0.0.1:{primary.port}"}.items():
            text = text.replace(f"@{name}", f"@{address}")
        secret.chmod(0o644)
        secret.write_text(text)
    for name in ("dagster_home", "blobs", "mirror", "backups", "wal_archive", "drill"):
        (root / name).mkdir(mode=0o755)
    shutil.copy(REPOSITORY / "dagster_home" / "dagster.yaml", root / "dagster_home")
    values = {path.name: path.read_text() for path in (root / "secrets").iterdir()}
    running = Running(services, Places(root, here), ports, values, {}, primary)
    try:
        running.start("code-server")  # its definitions load while the database is prepared
        running.migrate()
        for name in STARTED:
            running.start(name)
            if name not in UNASKED:
                running.wait_until_healthy(name)
        yield running
    finally:
        running.stop()


@pytest.mark.skipif("TORTURE_SECONDS" not in os.environ, reason="a minute or two: make torture asks")
def test_the_end_to_end_suite_on_what_compose_starts(stack, library, tree, root):
    """What it does with nothing broken but content: the rest kills what the embedded stack would start again."""
    end_to_end.test_the_webserver_answers_from_its_storage(stack)
    end_to_end.test_a_tree_goes_in_and_comes_out_byte_for_byte(stack, library, tree, root)
    end_to_end.test_the_night_proves_its_backup_and_finds_later_damage(stack)


def test_a_submit_and_a_night_on_what_compose_starts(stack):
    url = f"http://127.0.0.1:{stack.ports['asset-service']}"
    content = b"from a container"
    sha256 = hashlib.sha256(content).hexdigest()
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {stack.secrets['depot_token']}"}) as http:
        project = http.post("/projects", json={"name": f"compose-{secrets.token_hex(3)}"}).raise_for_status().json()
        http.put(f"/projects/{project['id']}/objects/{sha256}", content=content).raise_for_status()
        opened = {"project_id": project["id"], "branch_id": project["default_branch_id"]}
        changelist = http.post("/changelists", json=opened).raise_for_status().json()["id"]
        items = {"items": [{"action": "add", "path": "Content/a.uasset", "sha256": sha256}]}
        http.post(f"/changelists/{changelist}/items", json=items).raise_for_status()
        assert http.post(f"/changelists/{changelist}/submit").raise_for_status().json()["number"] == 1
    dagster = f"http://127.0.0.1:{stack.ports['dagster-webserver']}"
    night = wait(dagster, launch(dagster, "nightly_maintenance"), HEALTHY_SECONDS)
    assert night.dagster_status == "SUCCESS", f"{night}{stack.log('code-server')}{stack.log('dagster-daemon')}"
    assert {check.check for check in night.checks} >= {"service_health", "restorable_listing", "full_read"}
    assert list((stack.places.root / "backups").glob("*.dump"))
    # In a container the rest of DAGSTER_HOME cannot be written.
    service = stack.services["code-server"]
    mounted = [*service["tmpfs"], *(volume.split(":")[1] for volume in service["volumes"])]
    written = {f"/srv/dagster_home/{path.name}" for path in (stack.places.root / "dagster_home").iterdir()}
    assert written - {"/srv/dagster_home/dagster.yaml"} <= set(mounted)


def test_the_log_and_the_objects_are_carried_on(stack):
    with psycopg.connect(stack.primary.url(), autocommit=True) as primary:
        primary.execute("SELECT pg_switch_wal()")
    archive, mirror = stack.places.root / "wal_archive", stack.places.root / "mirror"
    deadline = time.monotonic() + HEALTHY_SECONDS
    while not (any(archive.rglob("0000*")) and any(path.is_file() for path in (mirror / "objects").rglob("*"))):
        assert time.monotonic() < deadline, stack.log("wal-collector") + stack.log("blob-mirror")
        time.sleep(0.1)
    stack.wait_until_healthy("wal-collector")
    stack.wait_until_healthy("blob-mirror")


@pytest.mark.skipif("TORTURE_SECONDS" not in os.environ, reason="seconds of imports: make torture asks")
@pytest.mark.parametrize("name", ["code-server", "dagster-daemon"])
def test_dagsters_own_checks_of_health_work_in_a_container(stack, name):
    stack.wait_until_healthy(name)


def test_operations_are_told_to_prometheus(stack):
    """After the night, and of all that its environment names: what is not asked for can never be an alarm."""
    stack.wait_until_healthy("depot-ops-metrics")
    deadline = time.monotonic() + HEALTHY_SECONDS
    of_the_night = {"restorable_listing", "full_read", "checksum", "row_counts", "backup_age"}
    while in_dagster(told := stack.metrics()) != of_the_night:  # it asks again after half a minute
        assert time.monotonic() < deadline, stack.log("depot-ops-metrics")
        time.sleep(0.5)
    asked = set(re.findall(r'^depot_ops_check_healthy\{check="(\w+)"', told, re.MULTILINE))
    assert asked >= {
        *("backup_age", "wal_freshness", "archiver_backlog", "spool_backlog", "drill_age", "mirror_lag"),
        *("scrub_age", "replica_health", "service_health", "dagster_checks"),
    }


def in_dagster(told: str) -> set[str]:
    return set(re.findall(r'^depot_ops_dagster_check_healthy\{asset="logical_backup",check="(\w+)"\} 1', told, re.M))


def test_the_access_rules_let_each_role_into_its_database_only(stack):
    for role, database in (("depot_service", "postgres"), ("depot_ops", "postgres"), ("depot_pgadmin", "template1")):
        password = stack.secrets[f"{role}_password"]
        with pytest.raises(psycopg.OperationalError, match=r"no pg_hba\.conf entry"):
            psycopg.connect(stack.primary.url(database, role, password))
        psycopg.connect(stack.primary.url("depot", role, password)).close()


def test_the_standby_makes_itself_and_streams(stack, root):
    """By the script that is its container's entry point."""
    primary, account = stack.primary, stack.primary.account
    home = root / "standby"
    home.mkdir(mode=0o700)
    password = home / "password"
    password.write_text(stack.secrets["depot_replication_password"])
    for path in (home, password):
        account.own(path)
    port = any_free()
    script = home / "depot-standby"
    shutil.copy(REPOSITORY / "deploy" / "postgres" / "standby.sh", script)
    account.own(script)
    environment = {
        "PATH": f"{primary.binaries.bindir}:{os.defpath}",
        "PRIMARY_HOST": "127.0.0.1",
        "PRIMARY_PORT": str(primary.port),
        "PGDATA": str(home / "data"),
        "DEPOT_REPLICATION_PASSWORD_FILE": str(password),
    }
    places = [f"--port={port}", f"--unix_socket_directories={home}", "--archive_mode=off"]
    with (root / "standby.log").open("wb") as log:
        stack.processes["standby"] = subprocess.Popen(
            [script, *places], env=environment, cwd="/", stdout=log, stderr=log, **account.process_owner()
        )
    url = f"postgresql://postgres:{primary.password}@127.0.0.1:{port}/postgres"
    deadline = time.monotonic() + HEALTHY_SECONDS
    while not streams(url):
        assert stack.processes["standby"].poll() is None and time.monotonic() < deadline, stack.log("standby")
        time.sleep(0.1)
    with psycopg.connect(primary.url()) as admin:
        slots = admin.execute("SELECT slot_name, active FROM pg_replication_slots").fetchall()
    assert slots == [("depot_standby", True)]


def streams(url: str) -> bool:
    try:
        with psycopg.connect(url) as standby:
            found = standby.execute("SELECT 1 FROM pg_stat_wal_receiver WHERE status = 'streaming'").fetchone()
    except psycopg.OperationalError:
        return False
    return found is not None


def test_no_secret_is_shown(stack):
    """Not by the process list, the API's description, Dagster's definitions or a log."""
    base = f"http://127.0.0.1:{stack.ports['asset-service']}"
    dagster = f"http://127.0.0.1:{stack.ports['dagster-webserver']}/graphql"
    shown = {f"log of {name}": stack.log(name) for name in stack.processes}
    shown["processes"] = "\n".join(" ".join(one.info["cmdline"] or []) for one in psutil.process_iter(["cmdline"]))
    shown["openapi"] = httpx.get(f"{base}/openapi.json").raise_for_status().text
    shown["metrics"] = httpx.get(f"{base}/metrics").raise_for_status().text
    shown["health"] = httpx.get(f"{base}/health").text
    shown["dagster"] = httpx.post(dagster, json={"query": RESOURCES}).raise_for_status().text
    assert "DEPOT_DUMP_URL" in shown["dagster"]
    found = [(place, name) for place, text in shown.items() for name, secret in stack.secrets.items() if secret in text]
    assert not found


def test_webserver_and_daemon_hold_no_secret_of_the_depot(stack):
    for name in ("dagster-webserver", "dagster-daemon"):
        environment = "\n".join(psutil.Process(stack.processes[name].pid).environ().values())
        held = {one for one, secret in stack.secrets.items() if secret in environment}
        assert held <= {"dagster_pg_url", "dagster_db_password"}
