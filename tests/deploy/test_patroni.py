"""What deploy/patroni says of its members, beside docker-compose.yml; the tests of replicas run three of them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
LOCKED = re.compile(r"^([a-z0-9._-]+)\S*.*==(\S+)", re.M)


@pytest.fixture(scope="module")
def override():
    return yaml.safe_load((DEPLOY / "patroni" / "compose.yml").read_text())["services"]


def test_members_run_with_the_settings_of_db(services):
    written = yaml.safe_load((DEPLOY / "patroni" / "patroni.yml").read_text())
    of_members = {**written["bootstrap"]["dcs"]["postgresql"]["parameters"], **written["postgresql"]["parameters"]}
    of_db = dict(one.removeprefix("--").split("=", 1) for one in services["db"]["command"] if one.startswith("--"))
    of_standby = dict(one.removeprefix("--").split("=", 1) for one in services["standby"]["command"])
    # Patroni itself keeps wal_level at replica or above.
    assert of_members == {name: value for name, value in {**of_standby, **of_db}.items() if name != "wal_level"}


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose is not installed (Debian's package)")
def test_compose_itself_reads_both(services):
    """`docker-compose config` takes no engine."""
    files = ("-f", "docker-compose.yml", "-f", "deploy/patroni/compose.yml")
    command = ["docker-compose", *files, "--profile", "monitoring", "config"]
    read = subprocess.run(command, cwd=DEPLOY.parent, capture_output=True, text=True, check=False)
    assert read.returncode == 0, read.stderr
    merged = yaml.safe_load(read.stdout)["services"]
    assert set(merged) - {"witness"} == set(services)
    assert merged["db"]["user"] == merged["witness"]["user"] == "999:999"
    assert merged["db"]["read_only"] and merged["witness"]["cap_drop"] == ["ALL"]


def test_every_member_is_told_of_all_others(override):
    members = {name for name, one in override.items() if "PATRONI_RAFT_SELF_ADDR" in one["environment"]}
    assert members == {"db", "standby", "witness"}
    for name in members:
        environment = override[name]["environment"]
        assert environment["PATRONI_NAME"] == name
        assert environment["PATRONI_RAFT_SELF_ADDR"] == f"{name}:2222"
        partners = {address.split(":")[0] for address in environment["PATRONI_RAFT_PARTNER_ADDRS"].split(",")}
        assert partners == members - {name}
    for watcher in ("code-server", "depot-ops-metrics"):
        urls = override[watcher]["environment"]["PATRONI_URLS"].split()
        assert urls == ["http://db:8008", "http://standby:8008"]


def test_the_image_holds_what_the_lock_names():
    dockerfile = (DEPLOY / "patroni" / "Dockerfile").read_text()
    bases = set(re.findall(r"^FROM (\S+)", dockerfile, re.M))
    others = [(DEPLOY / name).read_text() for name in ("postgres.Dockerfile", "asset-depot.Dockerfile")]
    assert bases == {base for text in others for base in re.findall(r"^FROM (\S+)", text, re.M)}
    assert re.findall(r"^USER (\S+)", dockerfile, re.M)[-1] == "999:999"  # postgres, whom its image makes
    assert all("--require-hashes" in one for one in re.findall(r"pip install [^\n]*", dockerfile))
    whole, shipped = (
        dict(LOCKED.findall(path.read_text()))
        for path in (DEPLOY.parent / "requirements.lock", DEPLOY / "patroni" / "requirements.lock")
    )
    assert {"patroni", "psycopg-binary", "pysyncobj"} <= shipped.keys()
    assert shipped.items() <= whole.items()
