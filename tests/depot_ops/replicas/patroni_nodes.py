"""Three members of a real Patroni cluster on loopback: its own Raft, deploy/patroni/patroni.yml, the embedded servers.

Root's interpreter and packages may be closed to the servers' account, as which Patroni runs: it runs on copies.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import httpx
import yaml

from depot_ops.local.ports import any_free
from depot_ops.postgres.accounts import ServerAccount
from depot_ops.postgres.binaries import Binaries
from depot_ops.replicas.server import wait_until

DEPLOYED = Path(__file__).parents[3] / "deploy" / "patroni"
NAMES = ("pg1", "pg2", "pg3")
USERNAME, REST_PASSWORD = "operations", "only-for-tests"
START_SECONDS = 60.0
# What `patroni` with Raft and psycopg imports.
PACKAGES = (
    *("patroni", "pysyncobj", "psycopg", "psycopg-binary", "PyYAML", "urllib3", "python-dateutil", "six", "psutil"),
    *("click", "prettytable", "wcwidth", "ydiff", "typing_extensions"),
)
HTTP = httpx.Client(timeout=5, trust_env=False)
# As quick as Patroni lets it be.
QUICK = {"ttl": 20, "loop_wait": 1, "retry_timeout": 3}
SETTINGS = {"fsync": "off", "shared_buffers": "16MB", "max_wal_size": "1GB"}
HBA = """\
local all         all              scram-sha-256
host  all         all 127.0.0.1/32 scram-sha-256
host  replication all 127.0.0.1/32 scram-sha-256
"""


@dataclass
class Member:
    """One Patroni, and the server that it keeps."""

    name: str
    home: Path
    command: list[str]
    environment: dict[str, str]
    account: ServerAccount
    rest_port: int
    port: int
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def rest_url(self) -> str:
        return f"http://127.0.0.1:{self.rest_port}"

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def log(self) -> Path:
        return self.home.with_suffix(".log")

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd="/",
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self.account.process_owner(),
            )

    def kill_patroni(self) -> None:
        """kill -9 of Patroni alone: its server goes on, and nobody demotes it any more."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def kill(self) -> None:
        """kill -9 of Patroni and of its server, as when the host is lost."""
        self.kill_patroni()
        self.kill_server()

    def kill_server(self) -> None:
        try:
            pid = int((self.data / "postmaster.pid").read_text().splitlines()[0])
        except FileNotFoundError:
            return
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not _is_alive(pid), START_SECONDS, f"{pid} does not die")


@dataclass
class PatroniNodes:
    """All of them, whichever leads."""

    members: dict[str, Member]
    password: str

    @property
    def rest_urls(self) -> list[str]:
        return [member.rest_url for member in self.members.values()]

    def url(self, database: str = "postgres", user: str = "postgres", wanted: str = "primary") -> str:
        hosts = ",".join(f"127.0.0.1:{member.port}" for member in self.members.values())
        return f"postgresql://{user}:{self.password}@{hosts}/{database}?target_session_attrs={wanted}"

    def address(self, name: str, database: str = "depot") -> str:
        return f"postgresql://postgres:{self.password}@127.0.0.1:{self.members[name].port}/{database}"

    def view(self) -> dict[str, dict[str, Any]]:
        """What the members that answer agree on, by name; empty while nobody answers."""
        for member in self.members.values():
            with suppress(httpx.TransportError):
                answer = HTTP.get(f"{member.rest_url}/cluster").json()
                return {one["name"]: one for one in answer["members"]}
        return {}

    def leader(self, without: str = "") -> str | None:
        """Who leads and takes writes by its own word."""
        for name, member in self.members.items():
            with suppress(httpx.TransportError):
                if name != without and HTTP.get(f"{member.rest_url}/primary").status_code == 200:
                    return name
        return None

    def is_whole(self) -> bool:
        """One leads, and all others stream from it."""
        states = [one["state"] for one in self.view().values() if one["role"] != "leader"]
        return self.leader() is not None and states == ["streaming"] * (len(self.members) - 1)

    def wait_until_whole(self) -> None:
        wait_until(self.is_whole, START_SECONDS, f"not all members stream: {self.view()}; see {self.logs()}")

    def logs(self) -> str:
        tails = (member.log.read_text().splitlines()[-8:] for member in self.members.values() if member.log.exists())
        return "\n".join(line for tail in tails for line in tail)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _copy_packages(target: Path) -> Path:
    for package in PACKAGES:
        for file in distribution(package).files or []:
            if ".." not in file.parts and file.suffix != ".pyc":
                copy = target / file
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file.locate(), copy)
    return target


def _runnable_python(target: Path, account: ServerAccount) -> Path:
    """This interpreter, or a copy of it."""
    base, name = Path(sys.base_prefix), f"python{sys.version_info.major}.{sys.version_info.minor}"
    with suppress(OSError):
        if account.can_run(base / "bin" / name):
            return base / "bin" / name
    ignored = shutil.ignore_patterns(
        "site-packages", "test", "__pycache__", "config-*", "idlelib", "ensurepip", "lib2to3"
    )
    shutil.copytree(base / "lib" / name, target / "lib" / name, ignore=ignored)
    for library in (base / "lib").glob("libpython*.so*"):
        shutil.copy(library, target / "lib")
    (target / "bin").mkdir()
    return Path(shutil.copy(base / "bin" / name, target / "bin"))


@contextmanager
def patroni_nodes(
    seed: Path,
    directory: Path,
    password: str,
    binaries: Binaries,
    account: ServerAccount,
    dcs: dict[str, int] | None = None,
    settings: dict[str, str] | None = None,
) -> Iterator[PatroniNodes]:
    """Three members over copies of the data directory `seed`, whole; killed at the end."""
    packages = _copy_packages(directory / "packages")
    python = _runnable_python(directory / "python", account)
    raft = {name: any_free() for name in NAMES}
    members = {}
    for name in NAMES:
        home = directory / name
        (home / "spool").mkdir(parents=True)
        (home / "socket").mkdir()
        port, rest_port = any_free(), any_free()
        configuration = _configuration(home, dcs or QUICK, settings or SETTINGS)
        (home / "patroni.yml").write_text(yaml.safe_dump(configuration))
        (home / "pg_hba.conf").write_text(HBA)
        (home / "password").write_text(password)
        subprocess.run(["cp", "-a", seed, home / "data"], check=True)
        account.own_tree(home)
        environment = {
            "PATH": f"{binaries.bindir}:/usr/bin:/bin",
            "PYTHONPATH": str(packages),
            "LD_LIBRARY_PATH": str(python.parent.parent / "lib"),
            "LANG": "C.UTF-8",
            "PATRONI_NAME": name,
            "PATRONI_RESTAPI_LISTEN": f"127.0.0.1:{rest_port}",
            "PATRONI_RESTAPI_CONNECT_ADDRESS": f"127.0.0.1:{rest_port}",
            "PATRONI_RESTAPI_USERNAME": USERNAME,
            "PATRONI_RESTAPI_PASSWORD": REST_PASSWORD,
            "PATRONI_POSTGRESQL_LISTEN": f"127.0.0.1:{port}",
            "PATRONI_POSTGRESQL_CONNECT_ADDRESS": f"127.0.0.1:{port}",
            "PATRONI_POSTGRESQL_DATA_DIR": str(home / "data"),
            "PATRONI_POSTGRESQL_BIN_DIR": str(binaries.bindir),
            "PATRONI_POSTGRESQL_PGPASS": str(home / "pgpass"),
            "PATRONI_SUPERUSER_USERNAME": "postgres",
            "PATRONI_SUPERUSER_PASSWORD": password,
            "PATRONI_REPLICATION_USERNAME": "postgres",
            "PATRONI_REPLICATION_PASSWORD": password,
            "PATRONI_RAFT_DATA_DIR": str(home / "raft"),
            "PATRONI_RAFT_SELF_ADDR": f"127.0.0.1:{raft[name]}",
            "PATRONI_RAFT_PARTNER_ADDRS": ",".join(f"127.0.0.1:{raft[other]}" for other in NAMES if other != name),
            "DEPOT_MEMBER": name,
            "PGHOST": "127.0.0.1",
            "PGPORT": str(port),
            "POSTGRES_PASSWORD_FILE": str(home / "password"),
        }
        command = [str(python), "-m", "patroni", str(home / "patroni.yml")]
        members[name] = Member(name, home, command, environment, account, rest_port, port)
    made = PatroniNodes(members, password)
    try:
        for member in members.values():
            member.start()
        made.wait_until_whole()
        yield made
    finally:
        for member in members.values():
            member.kill()


def _configuration(home: Path, dcs: dict[str, int], settings: dict[str, str]) -> dict[str, Any]:
    """What is deployed, with the paths of this machine."""
    configuration: dict[str, Any] = yaml.safe_load((DEPLOYED / "patroni.yml").read_text())
    configuration["bootstrap"]["dcs"] |= dcs
    script = home / "begin_epoch.sh"
    shutil.copy(DEPLOYED / "begin_epoch.sh", script)
    postgresql = configuration["postgresql"]
    postgresql["callbacks"]["on_role_change"] = str(script)
    postgresql["parameters"] |= {
        "hba_file": str(home / "pg_hba.conf"),
        "unix_socket_directories": str(home / "socket"),
        "basic_archive.archive_directory": str(home / "spool"),
        **settings,
    }
    return configuration
