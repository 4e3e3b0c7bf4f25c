"""One PostgreSQL cluster on this machine: made, started, stopped."""

import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import quote

import psycopg

from depot_ops.parents import end_with
from depot_ops.postgres.accounts import ServerAccount
from depot_ops.postgres.binaries import Binaries

START_TIMEOUT_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 60.0
PROGRESS_SECONDS = 10.0
POLL_SECONDS = 0.05
# sockaddr_un holds 107 bytes, of which `/.s.PGSQL.65535` takes 16.
MAX_SOCKET_DIRECTORY_BYTES = 90
# Of postmaster.pid, counted from 0: what pg_ctl waits for, too.
STATUS_LINE = 7
# What is committed reaches the archive after this at the latest, however little is written.
ARCHIVE_TIMEOUT = "60s"


class ClusterError(Exception):
    """The cluster cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Patience:
    """To wait for a recovery: whom to tell how far it is, and what ends the wait."""

    say: Callable[[str], None]
    stop: threading.Event


@dataclass
class Cluster:
    """A data directory below `home`, and the server that runs on it as a child of this process."""

    home: Path
    port: int
    password: str = field(repr=False)
    binaries: Binaries
    account: ServerAccount
    settings: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _socket_directory: Path | None = field(default=None, init=False, repr=False)

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def wal_spool(self) -> Path:
        """Where basic_archive puts segments, and where they wait to be collected."""
        return self.home / "wal_spool"

    @property
    def log(self) -> Path:
        return self.home / "server.log"

    def url(self, database: str = "postgres", user: str = "postgres", password: str | None = None) -> str:
        secret = quote(self.password if password is None else password, safe="")
        return f"postgresql://{user}:{secret}@127.0.0.1:{self.port}/{database}"

    def initialize(self) -> None:
        """Make the cluster where there is none. Interrupted, it leaves nothing that looks like one."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.wal_spool.mkdir(mode=0o700, exist_ok=True)
        for directory in (self.home, self.wal_spool):
            self.account.own(directory)
        if self.data.is_dir():
            self._check_version()
            return
        partial = self.home / "data.initdb"
        shutil.rmtree(partial, ignore_errors=True)
        self._initdb(partial)
        with os.fdopen(self.account.open(partial / "postgresql.conf"), "a") as configuration:
            configuration.write("\ninclude 'depot.conf'\n")
        partial.rename(self.data)

    def _initdb(self, target: Path) -> None:
        password_file = self.home / "initdb.password"
        password_file.unlink(missing_ok=True)
        with os.fdopen(self.account.open(password_file), "w") as file:
            file.write(self.password)
        try:
            initdb(self.binaries, self.account, target, f"--pwfile={password_file}", "--auth=scram-sha-256")
        finally:
            password_file.unlink()

    def _check_version(self) -> None:
        major = (self.data / "PG_VERSION").read_text().strip()
        if major != str(self.binaries.major):
            raise ClusterError(
                f"{self.data} was made by PostgreSQL {major}, the programs in {self.binaries.bindir} are "
                f"{self.binaries.version}. Set DEPOT_PG_BINDIR to PostgreSQL {major}, or dump and restore."
            )

    def start(self, patience: Patience | None = None) -> None:
        """Start the server and wait until it takes connections. Call it from a thread that lives as long as the server.

        After a kill -9 the server recovers by itself; what is left of the old one is waited for. Recovery may take as
        long as it takes with `patience`; when that ends, the server is stopped, and `process` is None.
        """
        self._configure()
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        report_at = time.monotonic() + PROGRESS_SECONDS
        self.process = self._spawn()
        while self._status() not in ("ready", "standby") or not self._answers():
            if patience is not None and patience.stop.is_set():
                self.stop()
                return
            if patience is not None and self._status() == "starting":
                deadline = time.monotonic() + START_TIMEOUT_SECONDS
                if time.monotonic() > report_at:
                    report_at += PROGRESS_SECONDS
                    patience.say(
                        f"PostgreSQL on {self.data} replays its log before it answers: {self._last_log_line()}"
                    )
            if self.process.poll() is not None:
                if not self._predecessor_lives() or time.monotonic() > deadline:
                    raise ClusterError(f"PostgreSQL did not start on {self.data}: {self._last_log_line()}")
                self.process = self._spawn()
            if time.monotonic() > deadline:
                self.stop()
                raise ClusterError(f"PostgreSQL on {self.data} does not answer: {self._last_log_line()}")
            time.sleep(POLL_SECONDS)

    def _spawn(self) -> subprocess.Popen[bytes]:
        with os.fdopen(self.account.open(self.log), "ab") as log:
            return subprocess.Popen(
                [self.binaries.path("postgres"), "-D", self.data],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.data if os.geteuid() != 0 else "/",
                start_new_session=True,
                preexec_fn=partial(end_with, os.getpid(), signal.SIGINT),  # noqa: PLW1509 - two system calls, no lock
                **self.account.process_owner(),
            )

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _status(self) -> str | None:
        """As its postmaster.pid says. To ask the server itself would fill its log with refusals while it recovers."""
        try:
            lines = (self.data / "postmaster.pid").read_text().split("\n")
        except FileNotFoundError:
            return None
        assert self.process is not None
        ours = lines[0] == str(self.process.pid) and len(lines) > STATUS_LINE
        return lines[STATUS_LINE].strip() if ours else None

    def _predecessor_lives(self) -> bool:
        """Backends of a killed server hold its shared memory for a moment; a new one refuses until they are gone."""
        last = self._last_log_line(3)
        return any(sign in last for sign in ("pre-existing shared memory", "is another postmaster", "lock file"))

    def _last_log_line(self, lines: int = 1) -> str:
        if not self.log.exists():
            return "it wrote no log"
        return " ".join(self.log.read_text(errors="replace").strip().splitlines()[-lines:])

    def _configure(self) -> None:
        settings = {
            "port": str(self.port),
            "listen_addresses": "'127.0.0.1'",
            "unix_socket_directories": f"'{self._sockets()}'",
            "wal_level": "replica",
            **self.settings,
        }
        configuration = self.data / "depot.conf"
        lines = ["# Written at each start; put your own settings into postgresql.conf, below its include."]
        lines += [f"{name} = {value}" for name, value in settings.items()]
        with os.fdopen(self.account.open(configuration), "a") as file:
            file.truncate(0)
            file.write("\n".join(lines) + "\n")

    def _sockets(self) -> Path:
        if len(os.fsencode(self.home)) <= MAX_SOCKET_DIRECTORY_BYTES:
            return self.home
        self._socket_directory = Path(tempfile.mkdtemp(prefix="depot-pg-"))
        self.account.own(self._socket_directory)
        return self._socket_directory

    def stop(self) -> None:
        """Fast shutdown; immediate when that takes too long. Nothing to do when it does not run."""
        if self.process is None:
            return
        for wanted in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            if self.process.poll() is not None:
                break
            self.process.send_signal(wanted)
            try:
                self.process.wait(STOP_TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                continue
        self.process = None
        if self._socket_directory is not None:
            shutil.rmtree(self._socket_directory, ignore_errors=True)
            self._socket_directory = None


def initdb(binaries: Binaries, account: ServerAccount, target: Path, *options: str) -> None:
    """Make a data directory. Raises ClusterError, and leaves nothing then."""
    # The built-in provider sorts alike on every machine; before 17 only C does.
    locale = ["--locale=C"]
    if binaries.major >= 17:  # noqa: PLR2004 - a version of PostgreSQL
        locale += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    command: list[str | Path] = [
        binaries.path("initdb"),
        f"--pgdata={target}",
        "--username=postgres",
        "--encoding=UTF8",
        "--data-checksums",
        *locale,
        *options,
    ]
    made = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False, **account.process_owner())
    if made.returncode != 0:
        shutil.rmtree(target, ignore_errors=True)
        raise ClusterError(f"initdb failed in {target.parent}: {made.stderr.strip()}")


def archiving(cluster_home: Path, major: int) -> dict[str, str]:
    """Settings of the depot's primary: archive by contrib's basic_archive, in-process, fsynced, never overwriting."""
    settings = {
        "archive_mode": "on",
        "archive_library": "'basic_archive'",
        "basic_archive.archive_directory": f"'{cluster_home / 'wal_spool'}'",
        "archive_timeout": ARCHIVE_TIMEOUT,
    }
    if major >= 17:  # noqa: PLR2004 - a version of PostgreSQL
        settings["summarize_wal"] = "on"
    return settings
