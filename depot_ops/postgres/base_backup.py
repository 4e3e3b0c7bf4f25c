"""Taking a base backup, full or incremental: streamed, compressed, verified, and only then given its name."""

import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, cast

import psycopg
from isal import igzip

from depot_ops.durable import fsync, make_directories
from depot_ops.evidence import Figures, Finding, Status
from depot_ops.exclusive import exclusively
from depot_ops.postgres.base_record import (
    ARCHIVE_NAME,
    LABEL_FORMAT,
    MANIFEST_NAME,
    PARTIAL_PREFIX,
    RECORD_NAME,
    BaseBackup,
    BaseBackupKind,
    BaseBackupRecord,
    BaseRecordUnusable,
    base_directory,
    chain_of,
    find_base_backups,
    load_base_backup,
)
from depot_ops.postgres.binaries import Binaries
from depot_ops.postgres.client_tools import BadAddress, ToolFailed, client_environment, running
from depot_ops.postgres.dump_checks import sha256_of
from depot_ops.postgres.wal.content import BadWalFile, check_segment, check_start
from depot_ops.postgres.wal.names import WalName, parse_lsn, parse_wal_name, segment_name

_igzip = cast(Any, igzip)  # its stubs have no types
COMPRESSION_LEVEL = 1
CONNECT_TIMEOUT_SECONDS = 10
BLOCK_BYTES = 1 << 20
INCREMENTAL_SINCE = 17
VERIFIES_TAR_SINCE = 18
VERIFIED = "base_backup_verified"
CHAIN_INTACT = "chain_intact"

_SOURCE = """
SELECT (SELECT system_identifier FROM pg_control_system()), current_setting('server_version_num')::int / 10000,
       current_setting('server_version'), pg_size_bytes(current_setting('wal_segment_size')),
       current_setting('data_checksums') = 'on', (SELECT rolname FROM pg_roles WHERE oid = 10),
       (SELECT count(*) FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global')), pg_is_in_recovery()
"""


class BaseBackupError(Exception):
    """No base backup was taken, and nothing that looks like one is left; the message says why and what to do."""


class BaseBackupRunning(BaseBackupError):
    """Another base backup of this cluster is being taken."""


@dataclass(frozen=True, slots=True)
class _Source:
    system_identifier: int
    major: int
    version: str
    segment_size_bytes: int
    data_checksums: bool
    superuser: str
    tablespaces: int
    is_standby: bool


def take_base_backup(
    url: str,
    backup_dir: Path,
    binaries: Binaries,
    kind: BaseBackupKind = BaseBackupKind.FULL,
    *,
    max_rate: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> BaseBackup:
    """Back up the cluster at `url`, prove the backup, and only then give it its name. Raises BaseBackupError.

    `url` names a role with REPLICATION, on a primary or a standby. An incremental one builds on the newest backup.
    `max_rate` is pg_basebackup's; `say` is told what begins.
    """
    try:
        with psycopg.connect(url, autocommit=True, connect_timeout=CONNECT_TIMEOUT_SECONDS) as connection:
            source = _look_at(connection)
            _check_source(source, binaries)
            directory = base_directory(backup_dir, source.system_identifier)
            make_directories(directory)
            with sole_writer(directory) as lock:
                _remove_partials(directory)
                parent = _parent(directory, source, kind)
                partial = directory / f"{PARTIAL_PREFIX}{_free_label(directory, kind)}"
                try:
                    partial.mkdir(mode=0o700)
                    record = _take(url, connection, source, parent, partial, binaries, max_rate, lock, say)
                    return _publish(partial, record)
                finally:
                    shutil.rmtree(partial, ignore_errors=True)
    except BadAddress as error:
        raise BaseBackupError(str(error)) from None
    except (ToolFailed, psycopg.Error, tarfile.TarError, BadWalFile) as error:
        raise _explained(str(error).strip(), backup_dir) from error
    except OSError as error:
        reason = os.strerror(errno.ENOSPC) if error.errno == errno.EDQUOT else str(error)
        raise _explained(reason, backup_dir) from error


def _look_at(connection: psycopg.Connection[Any]) -> _Source:
    row = connection.execute(_SOURCE).fetchone()
    assert row is not None
    return _Source(*row)


def _check_source(source: _Source, binaries: Binaries) -> None:
    if source.major != binaries.major:
        raise BaseBackupError(
            f"the server is PostgreSQL {source.version}, the programs in {binaries.bindir} are {binaries.version}: set"
            " DEPOT_PG_BINDIR to those of the server's version"
        )
    if source.tablespaces:
        raise BaseBackupError(
            f"the cluster has {source.tablespaces} tablespaces beside the default one, which this does not back up:"
            " move what is in them to pg_default"
        )


def _parent(directory: Path, source: _Source, kind: BaseBackupKind) -> BaseBackup | None:
    if kind is BaseBackupKind.FULL:
        return None
    if source.major < INCREMENTAL_SINCE:
        raise BaseBackupError(
            f"PostgreSQL {source.version} has no incremental backups, only {INCREMENTAL_SINCE} and later: take a full"
        )
    labels = find_base_backups(directory.parent.parent, source.system_identifier)
    if not labels:
        raise BaseBackupError(f"{directory} has no backup for an incremental one to build on: take a full one")
    try:
        parent = chain_of(load_base_backup(labels[-1]))[-1]
    except BaseRecordUnusable as error:
        raise BaseBackupError(f"the newest backup cannot be built on: {error}. Take a full one") from error
    if sha256_of(parent.manifest) != parent.record.manifest_sha256:
        raise BaseBackupError(f"{parent.manifest} is damaged: take a full backup")
    if parent.record.data_checksums != source.data_checksums:
        raise BaseBackupError("data checksums were switched since the newest backup: take a full one")
    return parent


def _take(
    url: str,
    connection: psycopg.Connection[Any],
    source: _Source,
    parent: BaseBackup | None,
    partial: Path,
    binaries: Binaries,
    max_rate: str | None,
    lock: int,
    say: Callable[[str], None],
) -> BaseBackupRecord:
    label = partial.name.removeprefix(PARTIAL_PREFIX)
    started_at, started = datetime.now(UTC), time.monotonic()
    say(f"receiving {label}")
    command = [
        str(binaries.path("pg_basebackup")),
        *("--pgdata=-", "--format=tar", "--wal-method=fetch", "--checkpoint=fast", "--no-password"),
        f"--label={label}",
    ]
    command += [f"--incremental={parent.manifest}"] if parent else []
    command += [f"--max-rate={max_rate}"] if max_rate else []
    with (
        _kept_log(connection),
        running(command, client_environment(url), stdout=subprocess.PIPE, keep_open=[lock]) as process,
    ):
        assert process.stdout is not None
        _widen(process.stdout)
        received = _receive(process.stdout, partial, source)
    if received is None or not (partial / MANIFEST_NAME).exists():
        raise BaseBackupError("pg_basebackup ended without a whole archive and its manifest: try again")
    size_bytes, archive_sha256 = received
    finished_at = _server_clock(connection)
    duration_seconds = time.monotonic() - started
    wal_range = _wal_range(partial / MANIFEST_NAME)
    first, last = parse_lsn(wal_range["Start-LSN"]), parse_lsn(wal_range["End-LSN"])
    timeline, segment_bytes = int(wal_range["Timeline"]), source.segment_size_bytes
    verify_started = time.monotonic()
    say("reading it against its manifest")
    _verify_tree(partial, binaries)
    return BaseBackupRecord(
        label=label,
        kind=BaseBackupKind.INCREMENTAL if parent else BaseBackupKind.FULL,
        parent=parent.record.label if parent else None,
        system_identifier=source.system_identifier,
        timeline=timeline,
        start_lsn=wal_range["Start-LSN"],
        stop_lsn=wal_range["End-LSN"],
        start_segment=segment_name(timeline, first // segment_bytes, segment_bytes),
        stop_segment=segment_name(timeline, (last - 1) // segment_bytes, segment_bytes),
        segment_size_bytes=segment_bytes,
        server_version=source.version,
        tool_version=binaries.version,
        superuser=source.superuser,
        data_checksums=source.data_checksums,
        started_at=started_at,
        finished_at=finished_at,
        duration_seconds=round(duration_seconds, 3),
        verify_seconds=round(time.monotonic() - verify_started, 3),
        size_bytes=size_bytes,
        stored_size_bytes=(partial / ARCHIVE_NAME).stat().st_size,
        archive_sha256=archive_sha256,
        manifest_sha256=sha256_of(partial / MANIFEST_NAME),
    ).sealed()


@contextmanager
def _kept_log(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """The server removes no log that the backup wants at its end. The slot ends with the connection at the latest."""
    slot = f"depot_backup_{secrets.token_hex(6)}"
    connection.execute("SELECT pg_create_physical_replication_slot(%s, true, true)", [slot])
    yield
    connection.execute("SELECT pg_drop_replication_slot(%s)", [slot])


class _Tee:
    """What is read goes into the compressed archive on its way."""

    def __init__(self, source: IO[bytes], copy: IO[bytes]) -> None:
        self._source, self._copy = source, copy
        self.size_bytes = 0

    def read(self, size: int) -> bytes:
        data = self._source.read(size)
        self._copy.write(data)
        self.size_bytes += len(data)
        return data


class _HashingFile:
    """A file that is hashed as it is written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def _widen(pipe: IO[bytes]) -> None:
    """With the usual 64 KiB the server waits at each turn of ours."""
    with suppress(OSError):  # an account that has many pipes keeps its small one
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, BLOCK_BYTES)


def _receive(stream: IO[bytes], partial: Path, source: _Source) -> tuple[int, str] | None:
    """Compress the stream into the archive and take it apart on its way; None when it ends in the middle."""
    with (partial / ARCHIVE_NAME).open("xb") as file:
        hashing = _HashingFile(file)
        with _igzip.IGzipFile(fileobj=hashing, mode="wb", compresslevel=COMPRESSION_LEVEL, mtime=0) as compressed:
            tee = _Tee(stream, compressed)
            try:
                _take_apart(cast(IO[bytes], tee), partial, source)
            except tarfile.ReadError:
                while stream.read(BLOCK_BYTES):  # pg_basebackup says why when it has ended
                    pass
                return None
            while tee.read(BLOCK_BYTES):
                pass
        file.flush()
        os.fsync(file.fileno())
    return tee.size_bytes, hashing.sha256.hexdigest()


def _take_apart(stream: IO[bytes], partial: Path, source: _Source) -> None:
    """Keep the manifest, which comes last, and check the log that the backup carries, which no manifest covers."""
    last: tuple[WalName, bytes] | None = None
    with tarfile.open(fileobj=stream, mode="r|", bufsize=BLOCK_BYTES) as members:
        for member in members:
            if member.name == MANIFEST_NAME:
                (partial / MANIFEST_NAME).write_bytes(_content(members, member))
                fsync(partial / MANIFEST_NAME)
            elif name := _segment_of(member):
                if last is not None:
                    check_segment(*last, source.system_identifier)
                last = name, _content(members, member)
    if last is not None:
        # A standby cannot finish the segment in which the backup ends.
        check = check_start if source.is_standby else check_segment
        check(*last, source.system_identifier)


def _segment_of(member: tarfile.TarInfo) -> WalName | None:
    name = parse_wal_name(member.name.removeprefix("pg_wal/")) if member.name.startswith("pg_wal/") else None
    return name if name and name.is_whole_segment else None


def _content(members: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = members.extractfile(member)
    assert file is not None
    return file.read()


def _wal_range(manifest: Path) -> dict[str, Any]:
    ranges: list[dict[str, Any]] = json.loads(manifest.read_bytes())["WAL-Ranges"]
    if len(ranges) != 1:
        raise BaseBackupError(f"the backup spans {len(ranges)} timelines: the server was promoted meanwhile, try again")
    return ranges[0]


def _server_clock(connection: psycopg.Connection[Any]) -> datetime:
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    moment: datetime = row[0]
    return moment.astimezone(UTC)


def _verify_tree(path: Path, binaries: Binaries) -> None:
    """Read every file of the backup against its manifest. Raises ToolFailed."""
    if binaries.major >= VERIFIES_TAR_SINCE:
        run_verifybackup(path, binaries, "--format=tar", f"--ignore={RECORD_NAME}")
        return
    tree = path.parent / f"{PARTIAL_PREFIX}tree-{secrets.token_hex(6)}"
    try:
        extract(path / ARCHIVE_NAME, tree)
        run_verifybackup(tree, binaries)
    finally:
        shutil.rmtree(tree, ignore_errors=True)


def run_verifybackup(path: Path, binaries: Binaries, *options: str) -> None:
    """pg_verifybackup without the log, which is proved segment by segment. Raises ToolFailed."""
    command = [
        str(binaries.path("pg_verifybackup")),
        "--no-parse-wal",
        "--exit-on-error",
        "--quiet",
        *options,
        str(path),
    ]
    with running(command, client_environment()):
        pass


def extract(archive: Path, target: Path) -> None:
    """Unpack a backup into the new directory `target`. Raises OSError or TarError when it is damaged."""
    target.mkdir(mode=0o700)
    with _igzip.open(archive, "rb") as stream, tarfile.open(fileobj=stream, mode="r|", bufsize=BLOCK_BYTES) as members:
        for member in members:
            members.extract(member, target, filter="tar", numeric_owner=True)
        while stream.read(BLOCK_BYTES):  # what is behind the last member has a checksum too
            pass


def verify_base_backup(backup: BaseBackup, binaries: Binaries) -> Finding:
    """Prove a base backup again from what lies on disk: hashes of the whole, and each file against the manifest."""
    started = time.monotonic()
    figures = {"file": backup.record.label, "stored_size_bytes": backup.record.stored_size_bytes}
    try:
        problem = damage_of(backup)
        if problem is None:
            _verify_tree(backup.path, binaries)
    except (ToolFailed, tarfile.TarError) as error:
        problem = str(error)
    except OSError as error:
        return Finding(check=VERIFIED, status=Status.UNKNOWN, detail=f"{backup.path} could not be read: {error}")
    status = Status.UNHEALTHY if problem else Status.HEALTHY
    seconds = round(time.monotonic() - started, 3)
    detail = problem or "every file is as its manifest says"
    return Finding(check=VERIFIED, status=status, detail=detail, figures={**figures, "duration_seconds": seconds})


def verify_newest_chains(
    backup_dir: Path, binaries: Binaries, say: Callable[[str], None] = lambda _: None
) -> list[Finding]:
    """Prove each cluster's newest base backup again, and all that it builds on. Raises OSError when it cannot look."""
    findings = []
    newest = {path.parent: path for path in find_base_backups(backup_dir)}
    for path in newest.values():
        try:
            chain = chain_of(load_base_backup(path))
        except BaseRecordUnusable as error:
            figures: Figures = {"file": path.name}
            findings.append(Finding(check=VERIFIED, status=Status.UNHEALTHY, detail=str(error), figures=figures))
            continue
        for element in chain:
            say(f"reading {element.record.label}")
            findings.append(verify_base_backup(element, binaries))
    return findings


def check_chain(path: Path) -> Finding:
    """Is the backup there with everything that it builds on? Does not read it through: that is `verify`."""
    figures: Figures = {"file": path.name}
    try:
        chain = chain_of(load_base_backup(path))
        for element in chain:
            size_bytes = element.archive.stat().st_size
            if size_bytes != element.record.stored_size_bytes:
                detail = f"{element.archive} has {size_bytes} of {element.record.stored_size_bytes} bytes"
                return Finding(check=CHAIN_INTACT, status=Status.UNHEALTHY, detail=detail, figures=figures)
    except (BaseRecordUnusable, FileNotFoundError) as error:
        return Finding(check=CHAIN_INTACT, status=Status.UNHEALTHY, detail=str(error), figures=figures)
    except OSError as error:
        return Finding(check=CHAIN_INTACT, status=Status.UNKNOWN, detail=str(error), figures=figures)
    record = chain[-1].record
    figures |= {
        "elements": len(chain),
        "stored_size_bytes": record.stored_size_bytes,
        "finished_at": record.finished_at.isoformat(),
    }
    builds_on = f", builds on {', '.join(link.record.label for link in chain[:-1])}" if record.parent else ""
    detail = f"{record.kind}, timeline {record.timeline}, {record.start_lsn} to {record.stop_lsn}{builds_on}"
    return Finding(check=CHAIN_INTACT, status=Status.HEALTHY, detail=detail, figures=figures)


def damage_of(backup: BaseBackup) -> str | None:
    """What differs from the hashes taken when the backup was made. Raises OSError when it cannot be read."""
    for path, expected in (
        (backup.manifest, backup.record.manifest_sha256),
        (backup.archive, backup.record.archive_sha256),
    ):
        if not path.is_file():
            return f"{path} is gone; the backup's record is still there"
        if sha256_of(path) != expected:
            return f"{path} is damaged: it has not the SHA-256 with which it was written"
    return None


def _publish(partial: Path, record: BaseBackupRecord) -> BaseBackup:
    described = partial / RECORD_NAME
    described.touch(mode=0o600)
    described.write_text(record.model_dump_json(indent=2) + "\n")
    fsync(described)
    fsync(partial)
    final = partial.with_name(record.label)
    partial.rename(final)
    fsync(final.parent)
    return BaseBackup(path=final, record=record)


def _free_label(directory: Path, kind: BaseBackupKind) -> str:
    # Labels are by the second and tell the order: a second backup within one waits for the clock.
    while True:
        moment = datetime.now(UTC).strftime(LABEL_FORMAT)
        if not any(directory.glob(f"{moment}-*")):
            return f"{moment}-{kind}"
        time.sleep(0.02)


@contextmanager
def sole_writer(directory: Path) -> Iterator[int]:
    """Hold the directory against every other writer and deleter; the lock is a descriptor that children inherit."""
    # pg_basebackup inherits the lock: when we are killed, the directory stays taken until it too has ended.
    refusal = BaseBackupRunning(f"another backup is writing to {directory}: wait until it has ended")
    with exclusively(directory / ".lock", refusal) as lock:
        yield lock


def _remove_partials(directory: Path) -> None:
    # Called by the sole writer only: whoever wrote these is dead.
    for partial in directory.glob(PARTIAL_PREFIX + "*"):
        shutil.rmtree(partial)


def _explained(reason: str, backup_dir: Path) -> BaseBackupError:
    if os.strerror(errno.ENOSPC) in reason:
        return BaseBackupError(f"no room is left in {backup_dir}: free some, or use a larger disk. Nothing was kept")
    if "WAL summar" in reason:
        return BaseBackupError(f"{reason}. Set summarize_wal = on and take a full backup first")
    return BaseBackupError(f"the base backup failed: {reason}")
