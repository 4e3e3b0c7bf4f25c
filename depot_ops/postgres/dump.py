"""Taking logical backups: pg_dump from one snapshot and the cluster's roles, proved before it gets its name."""

import errno
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from depot_ops.durable import fsync
from depot_ops.evidence import Finding, Status
from depot_ops.exclusive import exclusively
from depot_ops.postgres.binaries import Binaries
from depot_ops.postgres.client_tools import BadAddress, ToolFailed, client_environment, running
from depot_ops.postgres.cluster_globals import GlobalsIncomplete, take_globals
from depot_ops.postgres.dump_checks import DumpCheck, prove, read_toc, sha256_of, sha256_of_files
from depot_ops.postgres.dump_record import (
    NAME_FORMAT,
    PARTIAL_PREFIX,
    PATTERN,
    RECORD_SUFFIX,
    BackupRecord,
    DumpFormat,
    partial_path,
    record_path,
    remove,
    stored_bytes,
)
from depot_ops.postgres.dump_source import LOCK_TIMEOUT_SECONDS, Snapshot, open_snapshot

# Every build of PostgreSQL reads and writes gzip. Level 1 takes half the time of the default, 6, for 5 % more bytes.
COMPRESSION = "1"  # of gzip; before 16 pg_dump takes only a number


@dataclass(frozen=True, slots=True)
class DumpOptions:
    """How a dump is written."""

    format: DumpFormat = DumpFormat.CUSTOM
    jobs: int = 1
    """Tables at once, in a directory; the other format has one writer."""
    compression: str = COMPRESSION
    """pg_dump's `--compress`."""
    role_passwords: bool = False
    """With the hashes of passwords in the statements for roles, which only a superuser can read."""


@dataclass(frozen=True, slots=True)
class NotTaken:
    """A database of which no backup was taken, and why."""

    database: str
    reason: str


class BackupError(Exception):
    """No backup was taken, and nothing that looks like one is left; the message says why and what to do."""


class BackupRunning(BackupError):
    """Another backup writes to the same directory."""


class VersionMismatch(BackupError):
    """pg_dump is older than the server."""


class DumpFailed(BackupError):
    """The source could not be read, or not all of it."""


class BackupDiskFull(BackupError):
    """The backup directory has no room."""


class BackupInvalid(BackupError):
    """What pg_dump wrote did not pass its checks."""

    def __init__(self, findings: list[Finding]) -> None:
        self.findings = findings
        super().__init__("the dump did not pass its checks: " + "; ".join(f"{f.check}: {f.detail}" for f in findings))


DEFAULTS = DumpOptions()


def take_logical_backups(
    urls: Iterable[str],
    directory: Path,
    binaries: Binaries,
    options: DumpOptions = DEFAULTS,
    *,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[list[BackupRecord], list[NotTaken]]:
    """Take a backup of each database: one that fails holds up none of the others. `say` is told which begins."""
    taken, not_taken = [], []
    for url in urls:
        say(f"dumping {_database_of(url)} and reading the dump")
        try:
            taken.append(take_logical_backup(url, directory, binaries, options))
        except BackupError as error:
            not_taken.append(NotTaken(_database_of(url), str(error)))
    return taken, not_taken


def _database_of(url: str) -> str:
    try:
        return client_environment(url).get("PGDATABASE", "")
    except BadAddress:
        return "a database whose address is none"


def take_logical_backup(url: str, directory: Path, binaries: Binaries, options: DumpOptions = DEFAULTS) -> BackupRecord:
    """Dump the database at `url` into `directory`, prove the dump, and only then give it its final name.

    Rows and objects of the source are counted in the snapshot that is dumped.
    Raises BackupError; whatever happens, also to this process, leaves nothing under a final name that is not proved.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with sole_writer(directory) as lock:
            _remove_partials(directory)
            try:
                return _take(url, _free_name(directory), binaries, options, lock)
            finally:
                _remove_partials(directory)
    except BadAddress as error:
        raise DumpFailed(str(error)) from None
    except GlobalsIncomplete as error:
        raise DumpFailed(str(error)) from error
    except ToolFailed as error:
        raise _explained(str(error), directory) from error
    except psycopg.Error as error:
        raise _explained(str(error).strip(), directory) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_full(directory) from error
        raise BackupError(f"the backup into {directory} failed: {error}") from error


def _take(url: str, final: Path, binaries: Binaries, options: DumpOptions, lock: int) -> BackupRecord:
    started_at, started = datetime.now(UTC), time.monotonic()
    environment = client_environment(url)
    partial = partial_path(final)
    with open_snapshot(url) as snapshot:
        if binaries.major < snapshot.server_major:
            raise VersionMismatch(
                f"pg_dump is version {binaries.version} and the server {snapshot.server_version}: an older pg_dump"
                " cannot read a newer server. Set DEPOT_PG_BINDIR to programs of the server's version or a later one."
            )
        command = _pg_dump(binaries, snapshot, options, partial)
        with running(command, environment, keep_open=[lock]):
            source_objects, row_counts = snapshot.count_objects(), snapshot.count_rows()
            cluster_globals = take_globals(url, snapshot, binaries, passwords=options.role_passwords)
        database, server_version = snapshot.database, snapshot.server_version
    _fsync_dump(partial)
    record = BackupRecord(
        file=final.name,
        format=options.format,
        sha256=sha256_of(partial),
        files=sha256_of_files(partial),
        size_bytes=stored_bytes(partial),
        database=database,
        server_version=server_version,
        tool_version=binaries.version,
        started_at=started_at,
        finished_at=datetime.now(UTC),
        duration_seconds=round(time.monotonic() - started, 3),
        row_counts=row_counts,
        source_objects=source_objects,
        toc_entries=read_toc(partial, binaries),
        globals=cluster_globals,
    )
    findings = [prove(partial, record, binaries, check) for check in DumpCheck]
    failed = [finding for finding in findings if finding.status is not Status.HEALTHY]
    if failed:
        raise BackupInvalid(failed)
    record = record.model_copy(update={"validation": tuple(findings)}).sealed()
    _publish(final, record)
    return record


def _pg_dump(binaries: Binaries, snapshot: Snapshot, options: DumpOptions, partial: Path) -> list[str]:
    # Without --enable-row-security, so that a policy which would hide a row from the dump fails it.
    jobs = [f"--jobs={options.jobs}"] if options.format is DumpFormat.DIRECTORY else []
    return [
        str(binaries.path("pg_dump")),
        f"--format={options.format}",
        *jobs,
        f"--compress={options.compression}",
        f"--snapshot={snapshot.id}",
        f"--lock-wait-timeout={LOCK_TIMEOUT_SECONDS}s",
        "--no-password",
        f"--file={partial}",
    ]


def _publish(final: Path, record: BackupRecord) -> None:
    # The dump comes last: until it has its name, this is no backup.
    described = record_path(final)
    partial_path(described).touch(mode=0o600)
    partial_path(described).write_text(record.model_dump_json(indent=2) + "\n")
    fsync(partial_path(described))
    partial_path(described).rename(described)
    partial_path(final).rename(final)
    fsync(final.parent)


@contextmanager
def sole_writer(directory: Path) -> Iterator[int]:
    """Hold the directory against every other writer and deleter; the lock is a descriptor that children inherit."""
    # pg_dump inherits the lock: when we are killed, the directory stays taken until it too has ended.
    refusal = BackupRunning(
        f"another backup is writing to {directory}: wait until it has ended. If its command was killed, its pg_dump"
        " still runs; it ends by itself."
    )
    with exclusively(directory / ".lock", refusal) as lock:
        yield lock


def _remove_partials(directory: Path) -> None:
    # Called by the sole writer only: whoever wrote these is dead.
    for partial in directory.glob(PARTIAL_PREFIX + PATTERN):
        final = directory / partial.name.removeprefix(PARTIAL_PREFIX)
        record_path(final).unlink(missing_ok=True)
        remove(partial)
    for partial in directory.glob(PARTIAL_PREFIX + PATTERN + RECORD_SUFFIX):  # and not of what else is written there
        remove(partial)


def _free_name(directory: Path) -> Path:
    # Names are by the second: a second backup within one waits for the clock.
    while (final := directory / datetime.now(UTC).strftime(NAME_FORMAT)).exists():
        time.sleep(0.02)
    return final


def _fsync_dump(dump: Path) -> None:
    for path in (*dump.iterdir(), dump) if dump.is_dir() else (dump,):
        fsync(path)


def _explained(reason: str, directory: Path) -> BackupError:
    if os.strerror(errno.ENOSPC) in reason or os.strerror(errno.EDQUOT) in reason:
        return _disk_full(directory)
    if "row-level security" in reason:
        return DumpFailed(
            f"a row-level security policy would hide rows from this role, and a dump of a part is no backup: {reason}."
            " Dump as depot_dump, which has BYPASSRLS."
        )
    return DumpFailed(f"the database could not be dumped: {reason}")


def _disk_full(directory: Path) -> BackupDiskFull:
    return BackupDiskFull(
        f"no room is left in {directory}: free some, or set BACKUP_DIR to a larger disk. Nothing was kept."
    )
