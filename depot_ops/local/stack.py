"""The embedded stack: which processes it consists of, in which order they start, and what it tells about itself."""

import fcntl
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg import sql

from depot_ops.local import ports
from depot_ops.local.depot_nodes import DepotNodes, NodeService
from depot_ops.local.secrets import StackSecrets, write_private, write_private_json
from depot_ops.local.supervisor import GaveUp, Program, Supervisor, tail
from depot_ops.postgres.accounts import AccountError, reachable_home, runnable_binaries, server_account
from depot_ops.postgres.binaries import Binaries, BinariesNotFound, find_binaries
from depot_ops.postgres.cluster import Cluster, ClusterError
from depot_ops.replicas.nodes import ReplicaError
from depot_ops.settings import FailoverProvider

MIN_FREE_BYTES = 1 << 30  # two clusters with their first WAL take 200 MB; less than this is soon a full disk
READY_TIMEOUT_SECONDS = 120.0
POLL_SECONDS = 0.1
# What a start after kill -9 waits for the processes of the one before, which stop when their parent dies.
LEFTOVER_TIMEOUT_SECONDS = 15.0
ADMIN = "admin"
JSON_LOGS = ("--log-format", "json")
PROJECT_ROOT = Path(__file__).resolve().parent.parent.parent

PRIMARY_SETTINGS = {"shared_buffers": "256MB", "max_connections": "100", "max_wal_size": "1GB"}
# Dagster keeps few rows; its cluster is apart so that it outlives the depot's.
DAGSTER_SETTINGS = {"shared_buffers": "64MB", "max_connections": "100", "wal_level": "minimal", "max_wal_senders": "0"}


class StackError(Exception):
    """The stack cannot start or go on; the message is one line for the person who started it."""


@dataclass(frozen=True)
class StackOptions:
    data_dir: Path
    api_port: int = 8000
    dagster_port: int = 3000
    with_dagster: bool = True
    api_workers: int = 2
    with_standby: bool = False
    metrics_port: int | None = None


@dataclass
class ClusterService:
    """A cluster under supervision."""

    name: str
    cluster: Cluster

    @property
    def log(self) -> Path:
        return self.cluster.log

    @property
    def process(self) -> subprocess.Popen[bytes] | None:
        return self.cluster.process

    def start(self) -> None:
        self.cluster.start()

    def stop(self) -> None:
        self.cluster.stop()


@dataclass
class Stack:
    """Made by `run`; lives in the thread that calls it."""

    options: StackOptions
    say: Callable[[str], None]
    secrets: StackSecrets
    binaries: Binaries
    nodes: DepotNodes
    dagster_cluster: Cluster
    supervisor: Supervisor = field(init=False)

    def __post_init__(self) -> None:
        self.supervisor = Supervisor(self.say, self._write_description)

    @property
    def primary(self) -> Cluster:
        """The cluster that takes writes when the stack starts."""
        return self.nodes.primary

    # Starting ---------------------------------------------------------------------------------------------------

    def start(self, stop: threading.Event) -> None:
        """Raises StackError. Returns early when `stop` is set meanwhile."""
        clusters = [self.primary, self.dagster_cluster] if self.options.with_dagster else [self.primary]
        with ThreadPoolExecutor() as pool:
            list(pool.map(Cluster.initialize, clusters))
        self.nodes.record()  # Dagster reads it as it starts
        if self.options.with_dagster:
            self._start_dagster_webserver()
        self.supervisor.start(NodeService("postgres", self.primary, self.nodes, self.say))
        self._start_program("wal-collector", ["-m", "depot_ops", "wal", "collect"], self._wal_environment())
        self._prepare_database()
        if "WAL_STREAM_DIR" in (wal := self._wal_environment()):
            environment = {
                **wal,
                "DEPOT_REPLICATION_URL": self.nodes.url(),
                "DEPOT_PG_BINDIR": str(self.binaries.bindir),
            }
            self._start_program("wal-receiver", ["-m", "depot_ops", "wal", "receive"], environment)
        if self.nodes.standby:
            self._start_standby(self.nodes.standby)
        self._start_api()
        self._wait_for("api", f"{self.api_url}/health", stop)
        if "ASSET_STORAGE_REPLICA_PATH" in (blobs := self._blob_environment()):
            self._start_program("blob-mirror", ["-m", "depot_ops", "blobs", "mirror", "--follow"], blobs)
        if "BLOB_COPY_URL" in os.environ:
            self._start_program("blob-push", ["-m", "depot_ops", "blobs", "push", "--follow"], blobs)
        if self.options.metrics_port is not None:
            listen = f"127.0.0.1:{self.options.metrics_port}"
            command = ["-m", "depot_ops", "metrics", "--listen", listen]
            dagster = {"DAGSTER_URL": self.dagster_url} if self.options.with_dagster else {}
            self._start_program("ops-metrics", command, self._operations_environment() | dagster)
        if self.options.with_dagster:
            self._wait_for("dagster-webserver", f"{self.dagster_url}/server_info", stop)
            # After the webserver has made the tables: two that make them at once get in each other's way.
            command = ["-m", "dagster._daemon", "run", "-w", str(self._workspace()), *JSON_LOGS]
            self._start_program("dagster-daemon", command, self._operations_environment())
        if not stop.is_set():
            self._write_description()

    def _start_standby(self, standby: Cluster) -> None:
        try:
            self.nodes.prepare_standby(standby)
            self.supervisor.start(NodeService("postgres-standby", standby, self.nodes, self.say))
            self.nodes.prove_standby(standby)
        except ReplicaError as error:  # the depot works without it, and `depot-ops replica` mends it
            self.say(f"the standby is not there: {error}")
        # It has nothing to do until `depot-ops replica synchronous` turns a mode on.
        command = ["-m", "depot_ops", "replica", "keep-synchronous"]
        self._start_program("keep-synchronous", command, self._operations_environment())

    def _start_dagster_webserver(self) -> None:
        self.supervisor.start(ClusterService("dagster-postgres", self.dagster_cluster))
        _make_dagster_database(self.dagster_cluster.url(), self.secrets.dagster_password)
        self.dagster_home.mkdir(exist_ok=True)
        shutil.copyfile(PROJECT_ROOT / "dagster_home" / "dagster.yaml", self.dagster_home / "dagster.yaml")
        port = str(self.options.dagster_port)
        command = ["-m", "dagster_webserver", "-h", "127.0.0.1", "-p", port, "-w", str(self._workspace()), *JSON_LOGS]
        self._start_program("dagster-webserver", command, self._operations_environment())

    def _prepare_database(self) -> None:
        """Roles, schema, the first admin and a token for it: each step does nothing when it was done before."""
        self._run_tool("depot_api.database", "bootstrap")
        self._run_tool("depot_api.database", "upgrade")
        self._run_tool("depot_api.identity", "create-admin", "--username", ADMIN)
        self._run_tool(
            *("depot_api.identity", "create-token", "--username", ADMIN, "--name", "embedded stack"),
            *("--scope", "admin", "--days", "3650"),
        )

    def _run_tool(self, module: str, *arguments: str) -> None:
        environment = {
            **os.environ,
            "DEPOT_BOOTSTRAP_URL": self.primary.url(),
            "DEPOT_OWNER_PASSWORD": self.secrets.owner_password,
            "DEPOT_SERVICE_PASSWORD": self.secrets.service_password,
            "DEPOT_DUMP_PASSWORD": self.secrets.dump_password,
            "DEPOT_OPS_PASSWORD": self.secrets.ops_password,
            "DEPOT_REPLICATION_PASSWORD": self.secrets.replication_password,
            "DEPOT_MONITOR_PASSWORD": self.secrets.monitor_password,
            "DEPOT_PGADMIN_PASSWORD": self.secrets.pgadmin_password,
            "DATABASE_OWNER_URL": self.primary.url("depot", "depot_owner", self.secrets.owner_password),
            "DEPOT_ADMIN_PASSWORD": self.secrets.admin_password,
            "DEPOT_API_TOKEN": self.secrets.admin_token,
        }
        command = [sys.executable, "-m", module, *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise StackError(f"{module} {arguments[0]} failed: {done.stderr.strip()}")

    def _start_api(self) -> None:
        port, workers = str(self.options.api_port), str(self.options.api_workers)
        command = ["-m", "depot_api", "--port", port, "--workers", workers]
        self._start_program("api", command, self._service_environment())

    def _start_program(self, name: str, arguments: list[str], environment: dict[str, str]) -> None:
        log = self.options.data_dir / "logs" / f"{name}.log"
        self.supervisor.start(Program(name, [sys.executable, *arguments], {**os.environ, **environment}, log))

    def _service_environment(self) -> dict[str, str]:
        return {
            "DATABASE_URL": self.nodes.url("depot", "depot_service", self.secrets.service_password, "read-write"),
            "JWT_SECRET": self.secrets.jwt_secret,
            **self._blob_environment(),
        }

    def _blob_environment(self) -> dict[str, str]:
        """With a mirror where the environment names one, on a disk of its own."""
        mirror = os.environ.get("ASSET_STORAGE_REPLICA_PATH")
        found = {"ASSET_STORAGE_PATH": str(self.storage)}
        return found | {"ASSET_STORAGE_REPLICA_PATH": mirror} if mirror else found

    def _operations_environment(self) -> dict[str, str]:
        dagster_url = self.dagster_cluster.url("dagster", "dagster", self.secrets.dagster_password)
        return {
            "DAGSTER_HOME": str(self.dagster_home),
            "DAGSTER_PG_URL": dagster_url.replace("postgresql://", "postgresql+psycopg2://", 1),
            "DEPOT_URL": self.api_url,
            "DEPOT_TOKEN": self.secrets.admin_token,
            "DEPOT_DUMP_URL": self.nodes.url("depot", "depot_dump", self.secrets.dump_password),
            "DEPOT_OPS_URL": self.nodes.url("depot", "depot_ops", self.secrets.ops_password),
            "DEPOT_REPLICATION_URL": self.nodes.url(),
            "REPLICA_DIR": str(self.nodes.nodes.directory),
            "FAILOVER_PROVIDER": FailoverProvider.ASSISTED.value,
            "BACKUP_DIR": str(self.options.data_dir / "backups"),
            "DATABASE_OWNER_URL": self.owner_url,
            **self._standby_environment(),
            **self._wal_environment(),
            "DRILL_DIR": str(self.primary.home.with_name("drill")),
            **self._blob_environment(),
            "DEPOT_PG_BINDIR": str(self.binaries.bindir),
        }

    def _standby_environment(self) -> dict[str, str]:
        if self.nodes.standby is None:
            return {}
        return {"DEPOT_REPLICA_URL": self.nodes.url("depot", "depot_monitor", self.secrets.monitor_password, "standby")}

    def _wal_environment(self) -> dict[str, str]:
        """With a stream where the environment names a directory for it, on a disk of its own."""
        stream = os.environ.get("WAL_STREAM_DIR")
        found = {
            "WAL_SPOOL_DIR": str(self.nodes.wal_spool),
            "WAL_ARCHIVE_DIR": str(self.options.data_dir / "wal_archive"),
        }
        return found | {"WAL_STREAM_DIR": stream} if stream else found

    def _wait_for(self, name: str, url: str, stop: threading.Event) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_SECONDS
        while not _answers(url):
            self.supervisor.check()
            if stop.is_set():
                return
            if time.monotonic() > deadline:
                log = self.options.data_dir / "logs" / f"{name}.log"
                raise StackError(f"{name} does not answer at {url}. The end of {log}:\n{tail(log)}")
            time.sleep(POLL_SECONDS)

    # Telling ----------------------------------------------------------------------------------------------------

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.options.api_port}"

    @property
    def dagster_url(self) -> str:
        return f"http://127.0.0.1:{self.options.dagster_port}"

    @property
    def owner_url(self) -> str:
        return self.nodes.url("depot", "depot_owner", self.secrets.owner_password)

    @property
    def dagster_home(self) -> Path:
        return self.options.data_dir / "dagster_home"

    def _workspace(self) -> Path:
        return PROJECT_ROOT / "workspace.yaml"

    @property
    def storage(self) -> Path:
        return self.options.data_dir / "storage"

    @property
    def description_path(self) -> Path:
        return self.options.data_dir / "stack.json"

    @property
    def environment_path(self) -> Path:
        """For a shell: what `depot` and `depot-ops` read, as this stack has it."""
        return self.options.data_dir / "stack.env"

    def _write_description(self) -> None:
        description: dict[str, object] = {
            "api_url": self.api_url,
            "dagster_url": self.dagster_url if self.options.with_dagster else None,
            "database_url": self.owner_url,
            "admin_username": ADMIN,
            "admin_password": self.secrets.admin_password,
            "admin_token": self.secrets.admin_token,
            "replication_url": self.nodes.url(),
            "replica_dir": str(self.nodes.nodes.directory),
            "pids": self.supervisor.pids(),
        }
        write_private_json(self.description_path, description)
        environment = {**self._operations_environment(), "DAGSTER_URL": self.dagster_url}
        exports = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
        write_private(self.environment_path, "\n".join(exports))

    def greet(self) -> None:
        self.say(f"depot    {self.api_url}   (API documentation: {self.api_url}/docs)")
        if self.options.with_dagster:
            self.say(f"dagster  {self.dagster_url}")
        self.say(f"sign in  user {ADMIN}, password {self.secrets.admin_password}")
        self.say(f"         or, for depot and depot-ops in a shell: . {self.environment_path}")
        self.say(f"All of it is in {self.description_path}. Ctrl-C stops the stack.")


def run(options: StackOptions, say: Callable[[str], None], stop: threading.Event) -> None:
    """Run the stack until `stop` is set. Raises StackError."""
    options.data_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
    with (options.data_dir / "up.lock").open("a+") as lock:
        _take_lock(lock.fileno(), options.data_dir)
        stack = _make_stack(options, say)
        try:
            stack.start(stop)
            if not stop.is_set():
                stack.greet()
                stack.supervisor.watch(stop)
        except (ClusterError, GaveUp, ReplicaError) as error:
            raise StackError(str(error)) from error
        finally:
            say("stopping")
            stack.supervisor.stop()
            stack.environment_path.unlink(missing_ok=True)
            stack.description_path.unlink(missing_ok=True)


def _take_lock(descriptor: int, data_dir: Path) -> None:
    """Held by the process, so that a stale one cannot be: it goes with kill -9."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 100, 0).decode().strip()
        raise StackError(
            f"A stack runs on {data_dir} already (pid {holder}). Stop it, or name another --data-dir."
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)


def _make_stack(options: StackOptions, say: Callable[[str], None]) -> Stack:
    _wait_for_leftovers(options, say)
    _check_ports(options)
    free_bytes = shutil.disk_usage(options.data_dir).free
    if free_bytes < MIN_FREE_BYTES:
        raise StackError(
            f"{options.data_dir} has {free_bytes >> 20} MiB free and needs {MIN_FREE_BYTES >> 20}. Make room first."
        )
    try:
        account = server_account()
        binaries = runnable_binaries(find_binaries(), account)
    except (AccountError, BinariesNotFound) as error:
        raise StackError(str(error)) from error
    secrets = StackSecrets.load(options.data_dir / "secrets.json")
    home = reachable_home(options.data_dir, account)
    home.mkdir(mode=0o711, parents=True, exist_ok=True)
    password = secrets.superuser_password
    try:
        nodes = DepotNodes.found(home, password, binaries, account, PRIMARY_SETTINGS, options.with_standby)
    except ReplicaError as error:
        raise StackError(str(error)) from error
    return Stack(
        options=options,
        say=say,
        secrets=secrets,
        binaries=binaries,
        nodes=nodes,
        dagster_cluster=Cluster(home / "dagster", ports.any_free(), password, binaries, account, DAGSTER_SETTINGS),
    )


def _wait_for_leftovers(options: StackOptions, say: Callable[[str], None]) -> None:
    """A stack that was killed leaves its description; its processes stop by themselves, which takes a moment."""
    description = options.data_dir / "stack.json"
    if not description.exists():
        return
    say("The stack was killed before; going on with its data.")
    pids = json.loads(description.read_text())["pids"].values()
    deadline = time.monotonic() + LEFTOVER_TIMEOUT_SECONDS
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    description.unlink()


def _check_ports(options: StackOptions) -> None:
    wanted = {"--api-port": options.api_port}
    if options.with_dagster:
        wanted["--dagster-port"] = options.dagster_port
    if options.metrics_port is not None:
        wanted["--metrics-port"] = options.metrics_port
    for option, port in wanted.items():
        if not ports.is_free(port):
            raise StackError(f"Port {port} is taken by another program. Stop that, or name another with {option}.")


def _make_dagster_database(superuser_url: str, password: str) -> None:
    with psycopg.connect(superuser_url, autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = 'dagster'").fetchone():
            return
        verifier = connection.pgconn.encrypt_password(password.encode(), b"dagster", b"scram-sha-256").decode()
        connection.execute(sql.SQL("CREATE ROLE dagster LOGIN PASSWORD {}").format(sql.Literal(verifier)))
        connection.execute("CREATE DATABASE dagster OWNER dagster")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 - an address of our own making
            return bool(response.status == 200)  # noqa: PLR2004 - HTTP's OK
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False
