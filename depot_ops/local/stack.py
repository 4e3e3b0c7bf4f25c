"""The embedded stack: which processes it consists of, in which order they start, and what it tells about itself."""

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

from depot_ops.durable import write_private
from depot_ops.exclusive import exclusively
from depot_ops.local import ports
from depot_ops.local.depot_nodes import DepotNodes, NodeService
from depot_ops.local.secrets import StackSecrets, write_private_json
from depot_ops.local.supervisor import CannotStart, GaveUp, Program, Supervisor, tail
from depot_ops.postgres.accounts import AccountError, passable, reachable_home, runnable_binaries, server_account
from depot_ops.postgres.binaries import Binaries, BinariesNotFound, find_binaries
from depot_ops.postgres.cluster import Cluster, ClusterError, Patience
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
DAGSTER_SETTINGS = {
    "shared_buffers": "64MB",
    "max_connections": "100",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "synchronous_commit": "off",  # a run writes dozens of events, and each step of a failover waits for them
}
DAEMONS = "{ instance { daemonHealth { allDaemonStatuses { required lastHeartbeatTime } } } }"
# A proxy that the environment names does not know this machine's loopback.
_DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


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
    patience: Patience

    @property
    def log(self) -> Path:
        return self.cluster.log

    @property
    def process(self) -> subprocess.Popen[bytes] | None:
        return self.cluster.process

    def start(self) -> None:
        try:
            self.cluster.start(self.patience)
        except (AccountError, ClusterError) as error:
            raise CannotStart(str(error)) from error

    def stop(self) -> None:
        self.cluster.stop()


@dataclass
class Stack:
    """Made by `run`; lives in the thread that calls it."""

    options: StackOptions
    patience: Patience
    secrets: StackSecrets
    binaries: Binaries
    nodes: DepotNodes
    dagster_cluster: Cluster
    supervisor: Supervisor = field(init=False)
    _ready: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.supervisor = Supervisor(self.say, self._restarted)

    def say(self, message: str) -> None:
        self.patience.say(message)

    @property
    def _told_to_stop(self) -> bool:
        return self.patience.stop.is_set()

    @property
    def primary(self) -> Cluster:
        """The cluster that takes writes when the stack starts."""
        return self.nodes.primary

    # Starting ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Returns when everything answers, or when told to stop. Raises StackError, CannotStart and GaveUp."""
        clusters = [self.primary, self.dagster_cluster] if self.options.with_dagster else [self.primary]
        with ThreadPoolExecutor() as pool:
            list(pool.map(Cluster.initialize, clusters))
        self.nodes.record()  # Dagster reads it as it starts
        if self.options.with_dagster:
            self._start_dagster_webserver()
        self.supervisor.start(NodeService("postgres", self.primary, self.nodes, self.patience))
        if self._told_to_stop:
            return
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
        self._wait_for("api", f"{self.api_url}/health", lambda: _answers(f"{self.api_url}/health"))
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
            self._start_dagster_daemon()
        if not self._told_to_stop:
            self._ready = True
            self._write_description()

    def _start_standby(self, standby: Cluster) -> None:
        try:
            self.nodes.prepare_standby(standby)
            self.supervisor.start(NodeService("postgres-standby", standby, self.nodes, self.patience))
            self.nodes.prove_standby(standby)
        except ReplicaError as error:  # the depot works without it, and `depot-ops replica` mends it
            self.say(f"the standby is not there: {error}")
        # It has nothing to do until `depot-ops replica synchronous` turns a mode on.
        command = ["-m", "depot_ops", "replica", "keep-synchronous"]
        self._start_program("keep-synchronous", command, self._operations_environment())

    def _start_dagster_webserver(self) -> None:
        self.supervisor.start(ClusterService("dagster-postgres", self.dagster_cluster, self.patience))
        if self._told_to_stop:
            return
        _make_dagster_database(self.dagster_cluster.url(), self.secrets.dagster_password)
        self.dagster_home.mkdir(exist_ok=True)
        shutil.copyfile(PROJECT_ROOT / "dagster_home" / "dagster.yaml", self.dagster_home / "dagster.yaml")
        port = str(self.options.dagster_port)
        command = ["-m", "dagster_webserver", "-h", "127.0.0.1", "-p", port, "-w", str(self._workspace()), *JSON_LOGS]
        self._start_program("dagster-webserver", command, self._operations_environment())

    def _start_dagster_daemon(self) -> None:
        """After the webserver has made the tables: two that make them at once get in each other's way."""
        server_info = f"{self.dagster_url}/server_info"
        self._wait_for("dagster-webserver", server_info, lambda: _answers(server_info))
        started_at = time.time()
        command = ["-m", "dagster._daemon", "run", "-w", str(self._workspace()), *JSON_LOGS]
        self._start_program("dagster-daemon", command, self._operations_environment())
        graphql = f"{self.dagster_url}/graphql"
        self._wait_for("dagster-daemon", graphql, lambda: _daemons_live(graphql, started_at))

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
            "no_proxy": ",".join(filter(None, (os.environ.get("no_proxy", os.environ.get("NO_PROXY")), "127.0.0.1"))),
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

    def _wait_for(self, name: str, where: str, answers: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_SECONDS
        while not self._told_to_stop and not answers():
            self.supervisor.check()
            if time.monotonic() > deadline:
                log = self.options.data_dir / "logs" / f"{name}.log"
                raise StackError(f"{name} does not answer at {where}. The end of {log}:\n{tail(log)}")
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

    def _restarted(self) -> None:
        if self._ready:
            self._write_description()

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
    try:
        _run(options, Patience(say, stop))
    except (AccountError, BinariesNotFound, CannotStart, ClusterError, GaveUp, ReplicaError, psycopg.Error) as error:
        raise StackError(str(error).strip()) from error
    except OSError as error:
        raise StackError(
            f"{error}. The stack has to be able to write below {options.data_dir}: make room there, give it to who runs"
            " this, or name another --data-dir."
        ) from error


def _run(options: StackOptions, patience: Patience) -> None:
    if not options.data_dir.is_dir():
        passable(options.data_dir)
    path = options.data_dir / "up.lock"
    holder = path.read_text().strip() if path.exists() else ""
    refusal = StackError(
        f"A stack runs on {options.data_dir} already (pid {holder}). Stop it, or name another --data-dir."
    )
    with exclusively(path, refusal) as lock:
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        stack = _make_stack(options, patience)
        try:
            stack.start()
            if not patience.stop.is_set():
                stack.greet()
                stack.supervisor.watch(patience.stop)
        finally:
            patience.say("stopping")
            stack.supervisor.stop()
            stack.environment_path.unlink(missing_ok=True)
            stack.description_path.unlink(missing_ok=True)


def _make_stack(options: StackOptions, patience: Patience) -> Stack:
    _wait_for_leftovers(options, patience.say)
    _check_ports(options)
    free_bytes = shutil.disk_usage(options.data_dir).free
    if free_bytes < MIN_FREE_BYTES:
        raise StackError(
            f"{options.data_dir} has {free_bytes >> 20} MiB free and needs {MIN_FREE_BYTES >> 20}. Make room first."
        )
    account = server_account()
    binaries = runnable_binaries(find_binaries(), account)
    secrets = StackSecrets.load(options.data_dir / "secrets.json")
    home = reachable_home(options.data_dir, account)
    passable(home)
    password = secrets.superuser_password
    nodes = DepotNodes.found(home, password, binaries, account, PRIMARY_SETTINGS, options.with_standby)
    return Stack(
        options=options,
        patience=patience,
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

    def is_left() -> bool:
        """The ports too: what a process had started may outlive it for a moment."""
        runs = any(Path(f"/proc/{pid}").exists() for pid in pids)
        return runs or not all(map(ports.is_free, _wanted_ports(options).values()))

    while is_left() and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    description.unlink()


def _check_ports(options: StackOptions) -> None:
    for option, port in _wanted_ports(options).items():
        if not ports.is_free(port):
            raise StackError(f"Port {port} is taken by another program. Stop that, or name another with {option}.")


def _wanted_ports(options: StackOptions) -> dict[str, int]:
    """By the option that names them."""
    wanted = {"--api-port": options.api_port}
    if options.with_dagster:
        wanted["--dagster-port"] = options.dagster_port
    if options.metrics_port is not None:
        wanted["--metrics-port"] = options.metrics_port
    return wanted


def _make_dagster_database(superuser_url: str, password: str) -> None:
    with psycopg.connect(superuser_url, autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = 'dagster'").fetchone():
            return
        verifier = connection.pgconn.encrypt_password(password.encode(), b"dagster", b"scram-sha-256").decode()
        connection.execute(sql.SQL("CREATE ROLE dagster LOGIN PASSWORD {}").format(sql.Literal(verifier)))
        connection.execute("CREATE DATABASE dagster OWNER dagster")


def _answers(url: str) -> bool:
    return _asked(url) is not None


def _daemons_live(graphql: str, since: float) -> bool:
    """Whether each of Dagster's daemons was heard of after that time."""
    asked = _asked(graphql, {"query": DAEMONS})
    found = json.loads(asked)["data"] if asked else None
    if found is None:  # nor has it an answer while its storage has none
        return False
    daemons = found["instance"]["daemonHealth"]["allDaemonStatuses"]
    return all((daemon["lastHeartbeatTime"] or 0) >= since for daemon in daemons if daemon["required"])


def _asked(url: str, body: dict[str, str] | None = None) -> bytes | None:
    """What an address of our own answers with success; None before that."""
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310 - of our own making
    try:
        with _DIRECTLY.open(request, timeout=2) as response:
            return bytes(response.read())
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return None
